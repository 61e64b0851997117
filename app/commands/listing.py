"""`charloom runs`: what a store holds."""

from __future__ import annotations

import time

from rich import box
from rich.console import Console
from rich.table import Table

from app.progress import duration
from app.records import Status
from app.runs import RunStore

SILENT_SECONDS = 15.0  # without a heartbeat for so long, a run's worker is gone


def list_runs(store: RunStore) -> None:
    """Print the runs in the order of the queue."""
    runs = store.list()
    if not runs:
        print(f"{store.root} holds no run; make one with: charloom train my.txt")
        return
    columns = ("run", "state", "step", "of", "loss", "held-out", "left", "text")
    table = Table(*columns, title=str(store.root), title_justify="left", box=box.SIMPLE)
    table.columns[0].overflow = "fold"  # a name cut short could not be typed again
    for run in runs:
        status = run.standing
        table.add_row(
            run.name,
            state(status),
            f"{status.step:,}",
            f"{status.steps:,}" if status.steps else "",
            number(status.smooth_loss),
            number(status.validation_loss),
            "" if status.expected_end is None else duration(status.expected_end - time.time()),
            run.spec.corpus_name,
        )
    Console().print(table)
    for run in runs:
        if reason := run.standing.reason:
            print(f"{run.name}: {reason}")


def state(status: Status) -> str:
    silent = status.state == "training" and time.time() - status.heartbeat > SILENT_SECONDS
    return "interrupted" if silent else status.state


def number(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.4f}"
