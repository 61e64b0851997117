"""`charloom report`: a run's whole report as one file."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rich.console import Console

from app.engine.models import ModelStore
from app.reports.gradchecks import GradientChecks
from app.reports.plots import draw_loss_curve
from app.reports.report import METHODS, Checks, ReportFormat, checked_model, render
from app.settings import Settings
from app.store.files import write_atomic
from app.store.loss_curves import Curves
from app.store.run import Run
from app.store.run_store import RunStore


def write_report(
    settings: Settings, store: RunStore, name: str, target: Path | None, form: ReportFormat
) -> None:
    """Writes `<name>.html` or `.md`, or `target`, and says where. Raises CharloomError, OSError."""
    run = store.get(name)
    models = ModelStore(store)
    models.refresh()
    with Console(stderr=True).status("checking every gradient ..."):
        checks = asyncio.run(_checks(settings, models, run))
    curve = Curves().get(run)
    picture = draw_loss_curve(curve.drawn(), "svg", "light")
    path = target or Path(f"{run.name}.{'html' if form == 'html' else 'md'}")
    write_atomic(path, render(run, curve, checks, picture, form).encode("utf-8", "backslashreplace"))
    Console().print(f"{path}", markup=False, highlight=False)


async def _checks(settings: Settings, models: ModelStore, run: Run) -> Checks:
    checks = GradientChecks(settings.gradcheck_seconds)
    name = checked_model(run, models)
    model = models.get(name) if name else None
    try:
        return {method: (await checks.report(model, method)).parameters for method in METHODS}
    finally:
        await checks.helper.close()
