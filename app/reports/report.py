"""A run's report, as the assignment asks for it, from the run's own files: one page that needs no other."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Literal, get_args

import jinja2

from app.engine.models import ModelStore
from app.reports.gradchecks import Method
from app.reports.word_counts import Findings, read
from app.store.loss_curves import Curve
from app.store.run import Run

ReportFormat = Literal["html", "markdown"]
Checks = Mapping[Method, Sequence[Mapping[str, Any]]]  # by method: one entry a parameter

METHODS: tuple[Method, ...] = get_args(Method)
NAMED = 60  # words and names that are listed
TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("app", "web/templates"),
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ASSIGNMENT = "classic"  # the preset whose gradients are compared with the assignment's own figures


def checked_model(run: Run, models: ModelStore) -> str | None:
    """What a report's gradients are checked on; None is the assignment's fresh network."""
    return None if run.config.preset == ASSIGNMENT else models.get(f"{run.name}@best").id


def render(run: Run, curve: Curve, checks: Checks, picture: bytes, format: ReportFormat) -> str:
    """The whole report; `picture` is the curve as SVG. Reads the run's files. Raises RunFileError."""
    samples = run.samples()
    findings = read(run.text(), [sample["text"] for sample in samples])
    template = TEMPLATES.get_template("report.html" if format == "html" else "report.md")
    return template.render(
        run=run,
        config=run.config,
        curve=curve,
        rows=_rows(checks),
        methods=list(checks),
        samples=_described(samples, findings, curve),
        best=next((sample for sample in reversed(samples) if sample["kind"] == "best"), None),
        findings=findings,
        named=NAMED,
        picture="data:image/svg+xml;base64," + base64.b64encode(picture).decode("ascii"),
        style=style() if format == "html" else "",
    )


def style() -> str:
    """The page's style sheet, which is part of it."""
    return (files("app") / "web" / "report.css").read_text(encoding="utf-8")


def policy() -> str:
    """A content security policy that allows the page's own style and picture, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode("ascii")
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; frame-ancestors 'none'"


def _rows(checks: Checks) -> list[dict[str, Any]]:
    """One row a parameter, its errors in the order of the methods."""
    rows: dict[str, dict[str, Any]] = {}
    for results in checks.values():
        for result in results:
            row = rows.setdefault(
                result["name"], {"name": result["name"], "figure": result["assignment_figure"], "errors": []}
            )
            row["errors"].append((result["relative_error"], result["passed"]))
    return list(rows.values())


def _described(
    samples: Sequence[Mapping[str, Any]], findings: Findings, curve: Curve
) -> list[dict[str, Any]]:
    """The passages on the way, each with the smooth loss of its step and the share of real words."""
    losses = {point["step"]: point.get("smooth_loss") for point in curve.points}
    return [
        {**sample, "share": passage.share, "words": passage.words, "loss": losses.get(sample["step"])}
        for sample, passage in zip(samples, findings.passages, strict=True)
    ]
