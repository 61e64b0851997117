"""A run's report, as the assignment asks for it: one self-contained page, made from the run's files.

It is made in three parts: text, curve and samples, which are available immediately; the words counted in the
samples; and the gradients, whose check takes longest.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, get_args

import jinja2

from app.engine.loaded_model import LoadedModel
from app.engine.models import ModelStore
from app.errors import ModelNotFoundError, NotReadyError
from app.intake.findings import counted
from app.reports.gradchecks import Method
from app.reports.word_counts import Findings, Known, compare, learn
from app.store.loss_curves import Curve
from app.store.run import Run
from app.store.run_store import RunStore
from model.config import RunConfig
from model.errors import CheckpointError

ReportFormat = Literal["html", "markdown"]
Checks = Mapping[Method, Sequence[Mapping[str, Any]]]  # by method, one entry per parameter

METHODS: tuple[Method, ...] = get_args(Method)
NAMED = 60  # maximum number of words and of names listed
SHOWN = 50  # maximum number of samples, evenly spaced
TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("app", "web/templates"),
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters["counted"] = counted
ASSIGNMENT = "classic"  # the preset whose gradients are compared with the assignment's own figures
ASSIGNMENT_NAMES = {"layer0.W": "W", "V": "V", "layer0.U": "U", "layer0.b": "b", "c": "c"}  # in its order
NO_TEXT = "the run was imported without its text"


@dataclass(frozen=True)
class Details:
    """What the run's files do not contain; `picture` and `derivation` are links."""

    picture: str
    derivation: str = ""
    author: str = ""
    date: str = ""


@dataclass(frozen=True)
class ReportPages:
    """The report of one run, part by part.

    The gradients are checked on `model`; None means the assignment's new network. `samples` are from
    `shown_samples`.
    """

    run: Run
    curve: Curve
    model: LoadedModel | None
    samples: list[dict[str, Any]]
    details: Details
    format: ReportFormat

    @property
    def passages(self) -> list[str]:
        return [str(sample["text"]) for sample in self.samples]

    def first(self) -> str:
        """Everything except the counted words and the gradients."""
        losses = {point["step"]: point.get("smooth_loss") for point in self.curve.points}
        return self._part(
            "first",
            samples=[sample | {"loss": losses.get(sample["step"])} for sample in self.samples],
            best=next((sample for sample in reversed(self.samples) if sample["kind"] == "best"), None),
            details=self.details,
            clipping=_clipping(self.run.config),
            style=style() if self.format == "html" else "",
        )

    def words(self, findings: Findings | None, reason: str = "") -> str:
        """The words counted in the samples, or the reason why there are none."""
        return self._part("words", findings=findings, reason=reason, samples=self.samples, named=NAMED)

    def gradients(self, checks: Checks | None, reason: str = "") -> str:
        """The errors of the gradients, or the reason why there are none, and the end of the report."""
        rows = _rows(checks or {}, ASSIGNMENT_NAMES if self.run.config.preset == ASSIGNMENT else {})
        checked = self.model.id if self.model else None
        return self._part("gradients", rows=rows, methods=list(checks or {}), reason=reason, checked=checked)

    def _part(self, name: str, **values: Any) -> str:
        template = TEMPLATES.get_template("report.html" if self.format == "html" else "report.md")
        known = {"run": self.run, "config": self.run.config, "curve": self.curve, **values}
        return "".join(template.blocks[name](template.new_context(known)))


def checked_model(run: Run, models: ModelStore) -> LoadedModel | None:
    """The model whose gradients a report checks: the best checkpoint, or else the newest. Reads the disk.

    None means the assignment's new network. Raises NotReadyError, CheckpointError, RunFileError.
    """
    if run.config.preset == ASSIGNMENT:
        return None
    try:
        return models.get(f"{run.name}@best")
    except (ModelNotFoundError, NotReadyError, CheckpointError):
        return models.get(run.name)


def shown_samples(run: Run) -> list[dict[str, Any]]:
    """The samples of a run; if there are many, evenly spaced ones and the last. Raises OSError."""
    found = run.samples()
    every = max(1, -(-len(found) // SHOWN))
    return found[:-1:every] + found[-1:]


def has_text(run: Run) -> bool:
    """Whether the run has its text; an imported run may not."""
    return os.path.lexists(run.path / "corpus.txt")


def find_words(store: str, name: str, passages: Sequence[str]) -> Findings:
    """The words found in `passages` of a run. Reads its whole text: for a helper process."""
    return compare(_known(store, name, RunStore(store).get(name).spec.corpus_sha256), passages)


@functools.lru_cache(maxsize=2)
def _known(store: str, name: str, sha256: str) -> Known:
    return learn(RunStore(store).get(name).text())


def words_key(run: Run, passages: Sequence[str]) -> tuple[str, ...]:
    """The cache key of `find_words`."""
    written = hashlib.sha256("\0".join(passages).encode("utf-8", "surrogatepass")).hexdigest()
    return ("words", run.spec.corpus_sha256, written)


def inlined(picture: bytes) -> str:
    """The picture as a data URL."""
    return "data:image/svg+xml;base64," + base64.b64encode(picture).decode("ascii")


def style() -> str:
    """The style sheet, which is embedded in the page."""
    return (files("app") / "web" / "templates" / "report.css").read_text(encoding="utf-8")


def policy() -> str:
    """A content security policy that allows only the page's own style and picture."""
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode("ascii")
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; frame-ancestors 'none'"


def _clipping(config: RunConfig) -> str:
    if config.clip == "none":
        return "not clipped"
    element = "each element clipped to ±" if config.clip == "value" else "clipped to a norm of "
    return f"{element}{config.clip_at:g}"


def _rows(checks: Checks, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row per parameter, with its errors by method; those in `names` come first, renamed."""
    rows: dict[str, dict[str, Any]] = {}
    for results in checks.values():
        for result in results:
            name = result["name"]
            row = {"name": names.get(name, name), "figure": result["assignment_figure"], "errors": []}
            rows.setdefault(name, row)["errors"].append((result["relative_error"], result["passed"]))
    first = [rows.pop(name) for name in names if name in rows]
    return first + list(rows.values())
