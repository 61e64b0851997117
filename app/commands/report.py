"""`charloom report`: writes the report of a run to one file, plus a picture next to it for Markdown."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from urllib.parse import quote

from rich.console import Console

from app.commands.terminal import say
from app.engine.loaded_model import LoadedModel
from app.engine.models import ModelStore
from app.reports.gradchecks import GradientChecks
from app.reports.plots import draw_loss_curve
from app.reports.report import (
    METHODS,
    NO_TEXT,
    Checks,
    Details,
    ReportFormat,
    ReportPages,
    checked_model,
    find_words,
    has_text,
    inlined,
    shown_samples,
)
from app.settings import Settings
from app.store.files import replacing, write_atomic
from app.store.loss_curves import Curves
from app.store.run import Run
from app.store.run_store import RunStore
from model.errors import CharloomError


def write_report(
    settings: Settings,
    store: RunStore,
    name: str,
    target: Path | None,
    form: ReportFormat,
    author: str = "",
    date: str = "",
) -> None:
    """Write the report to `target`, by default `<name>.html` or `.md`. Raises CharloomError, OSError."""
    run = store.get(name)
    path = target or Path(f"{run.name}.{'html' if form == 'html' else 'md'}")
    with replacing(path) as temporary:  # opened first, so that a missing folder costs no computation
        text = _report(settings, store, run, path, form, author, date)
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
    say(str(path))


def _report(
    settings: Settings, store: RunStore, run: Run, path: Path, form: ReportFormat, author: str, date: str
) -> str:
    checked: LoadedModel | None = None
    checks: Checks = {}
    reason = ""
    try:
        checked = checked_model(run, ModelStore(store))
        with Console(stderr=True).status("checking every gradient ..."):
            checks = asyncio.run(_checks(settings, checked))
    except CharloomError as error:
        reason = str(error)
    curve = Curves().get(run)
    drawn = draw_loss_curve(curve.drawn(), "svg", "light")
    picture = inlined(drawn)
    if form == "markdown":
        beside = path.with_suffix(".svg")
        write_atomic(beside, drawn)
        picture = quote(os.fsencode(beside.name))
    details = Details(picture, author=author, date=date)
    pages = ReportPages(run, curve, checked, shown_samples(run), details, form)
    found = find_words(str(store.root), run.name, pages.passages) if has_text(run) else None
    return pages.first() + pages.words(found, NO_TEXT) + pages.gradients(checks, reason)


async def _checks(settings: Settings, model: LoadedModel | None) -> Checks:
    checks = GradientChecks(settings.gradcheck_seconds)
    try:
        return {method: (await checks.report(model, method)).parameters for method in METHODS}
    finally:
        await checks.helper.close()
