"""Pages and what they load: templates, and scripts and styles whose names hold a hash of their content."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from importlib.metadata import distribution
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import jinja2
from fastapi.responses import HTMLResponse

LAB = (
    "lab.css",
    "keys.js",
    "lab.js",
    "follow.js",
    "chart.js",
    "live.js",
    "prompt.js",
    "play.js",
    "travel.js",
    "inside.js",
    "proof.js",
    "runs.js",
    "fork.js",
    "train.js",
)
OWN = ("charloom.css", "charloom.js", *LAB, "loss-curve.js", "gradcheck.js", "docs.js", "icon.svg")
# what packages carry that we depend on
SWAGGER = ("swagger-ui-bundle.js", "swagger-ui.css")
PLOTTING = ("uPlot.iife.js", "uPlot.min.css")


@dataclass(frozen=True)
class Asset:
    """A file that pages load. `url` changes with its content, so that it can be cached for ever."""

    url: str
    media_type: str
    content: bytes


class Assets:
    """The files of `app/web`, read once."""

    def __init__(self) -> None:
        folders = {
            files("app") / "web": OWN,
            files("fastapi_offline") / "static": SWAGGER,
            # found, not imported: importing it would bring all of IPython along
            Path(str(distribution("uplot-python").locate_file("uplot/static"))): PLOTTING,
        }
        self._by_name = {name: _asset(folder / name) for folder, names in folders.items() for name in names}
        self._by_url = {asset.url: asset for asset in self._by_name.values()}
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("app", "web/templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
        )
        self._templates.globals["asset"] = lambda name: self._by_name[name].url

    @property
    def icon(self) -> Asset:
        return self._by_name["icon.svg"]

    def find(self, url: str) -> Asset | None:
        return self._by_url.get(url)

    def page(self, template: str, **values: Any) -> HTMLResponse:
        """A template filled in; all values are escaped."""
        return HTMLResponse(
            self._templates.get_template(template).render(values), headers={"cache-control": "no-cache"}
        )


def _asset(source: Traversable) -> Asset:
    content = source.read_bytes()
    stem, _, suffix = source.name.rpartition(".")
    digest = hashlib.sha256(content).hexdigest()[:12]
    media_type = mimetypes.guess_type(source.name)[0] or "application/octet-stream"
    if media_type.startswith("text/"):
        media_type += "; charset=utf-8"
    return Asset(f"/assets/{stem}.{digest}.{suffix}", media_type, content)
