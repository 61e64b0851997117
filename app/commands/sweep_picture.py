"""The picture of a sweep: the held-out loss of every trial over updates, with the best one highlighted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from app.store.files import replacing


class Line(NamedTuple):
    """A trial: its held-out losses by measurement."""

    name: str
    losses: dict[int, float]
    best: bool


def draw(lines: Sequence[Line], every: int, target: Path) -> None:
    """Write the picture in the format of the extension of `target`. Raises OSError, ValueError."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for line in sorted(lines, key=lambda one: one.best):
        updates = [measurement * every for measurement in line.losses]
        colour, width = ("#0b6e4f", 2.5) if line.best else ("#8a8f98", 1.0)
        label = line.name if line.best else None
        line_style = "-" + ("." if len(updates) < 2 else "")
        axes.plot(updates, list(line.losses.values()), line_style, color=colour, linewidth=width, label=label)
    axes.set_xlabel("updates")
    axes.set_ylabel("held-out loss, nats per character")
    axes.grid(alpha=0.3)
    if any(line.best for line in lines):
        axes.legend()
    with replacing(target) as temporary:
        figure.savefig(temporary, format=target.suffix.removeprefix(".") or "svg")
