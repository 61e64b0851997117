"""The pages, and the scripts and style sheets that they load."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import distribution
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse

from app.reports.report import TEMPLATES

ROOTED = re.compile(r'\b(?:href|src|srcset|action)="(?=/)')
KINDS = (".js", ".css", ".svg")  # of the files in app/web that pages load
# third-party scripts and style sheets, taken from installed packages that include them
SWAGGER = ("swagger-ui-bundle.js", "swagger-ui.css")
PLOTTING = ("uplot.iife.min.js", "uplot.min.css")


@dataclass(frozen=True)
class Asset:
    """A file that pages load. `url` changes with the content, so that clients can cache it indefinitely."""

    url: str
    media_type: str
    content: bytes

    @cached_property
    def compressed(self) -> bytes:
        """The content compressed with gzip."""
        return gzip.compress(self.content, mtime=0)


class Assets:
    """The files of `app/web` and the third-party files, read once.

    Args:
        root: path of the server behind a proxy, such as `/charloom`.

    All files of a directory share one hash in their URLs, because scripts import each other by relative
    paths.
    """

    def __init__(self, root: str = "") -> None:
        self.root = root
        web = _walk(files("app") / "web")
        self.own = _read(
            {name: file for name, file in web if name.endswith(KINDS) and not name.startswith("templates/")}
        )
        swagger = _folder_of("fastapi-offline", "fastapi_offline/static")
        plotting = _folder_of("youplot", "youplot/vendor")
        self._by_name = (
            self.own
            | _read({name: swagger / name for name in SWAGGER})
            | _read({name: plotting / name for name in PLOTTING})
        )
        self._by_url = {asset.url: asset for asset in self._by_name.values()}

    @property
    def icon(self) -> Asset:
        return self._by_name["icon.svg"]

    def url(self, name: str) -> str:
        """The URL of a file, by its path in `app/web` or its name in a package."""
        return self._by_name[name].url

    def find(self, url: str) -> Asset | None:
        return self._by_url.get(url)

    def page(self, template: str, **values: Any) -> HTMLResponse:
        """Render a template with all values escaped and links prefixed with the server's root path."""
        content = TEMPLATES.get_template(template).render(values, asset=self.url)
        if self.root:
            content = ROOTED.sub(rf"\g<0>{self.root}", content)
        return HTMLResponse(content, headers={"cache-control": "no-cache"})


def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    """All files below a directory, by their relative paths."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry


def _read(sources: dict[str, Traversable]) -> dict[str, Asset]:
    contents = {name: source.read_bytes() for name, source in sources.items()}
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    folder = f"/assets/{digest.hexdigest()[:12]}"
    return {name: Asset(f"{folder}/{name}", _media_type(name), content) for name, content in contents.items()}


def _media_type(name: str) -> str:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return kind + "; charset=utf-8" if kind.startswith("text/") else kind


def _folder_of(package: str, path: str) -> Path:
    """A directory of an installed package, found without importing the package."""
    return Path(str(distribution(package).locate_file(path)))
