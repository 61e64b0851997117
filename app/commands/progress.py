"""Shows the progress of a run: a live display in a terminal, plain lines everywhere else.

Both read the run's files, so a run that another process trains looks the same.
"""

from __future__ import annotations

import itertools
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from app.store.records import Status
from app.store.run import Run
from app.streams import visible

BLOCKS = " ▁▂▃▄▅▆▇█"
CHART_ROWS = 8
SAMPLE_LINES = 8
LINE_SECONDS = 5.0


class Display(Protocol):
    """Shows a run as it trains."""

    def shown(self) -> AbstractContextManager[object]:
        """The context in which `show` may be called."""

    def show(self, status: Status) -> None:
        """Called about once a second with the run's newest status."""


def make_display(run: Run, console: Console) -> Display:
    """A live display if the output is a terminal with UTF-8, otherwise lines."""
    live = console.is_terminal and (console.encoding or "").lower().startswith("utf")
    return LiveDisplay(run, console) if live else LineDisplay(run, console)


class LineDisplay:
    """Prints a line every few seconds, and each new sample."""

    def __init__(self, run: Run, console: Console) -> None:
        self.run, self.console = run, console
        self._due = 0.0
        self._state = ""
        self._samples = run.files().samples

    def shown(self) -> AbstractContextManager[object]:
        return nullcontext()

    def show(self, status: Status) -> None:
        for number, sample in self.run.samples_after(self._samples):
            self._print(f"{sample_title(sample)}:\n{indented(sample['text'])}")
            self._samples = number
        now = time.monotonic()
        if now >= self._due or status.state != self._state:
            self._print(f"{self.run.name}: {summary(status)}")
            self._due, self._state = now + LINE_SECONDS, status.state

    def _print(self, text: str) -> None:
        # no markup, colours or wrapping, because programs may read it
        self.console.print(visible(text), markup=False, highlight=False, soft_wrap=True)


class LiveDisplay:
    """Progress bar, loss curve and newest sample, redrawn in place."""

    def __init__(self, run: Run, console: Console) -> None:
        self.run, self.console = run, console
        self._live = Live(console=console, auto_refresh=False)

    def shown(self) -> AbstractContextManager[object]:
        return self._live

    def show(self, status: Status) -> None:
        self._live.update(self.picture(status), refresh=True)

    def picture(self, status: Status) -> RenderableType:
        """The whole display, no wider than the terminal."""
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_row(ProgressBar(total=1.0, completed=status.fraction), Text(f"{status.fraction:.0%}"))
        parts: list[RenderableType] = [bar, Text(visible(summary(status)))]
        losses = [point["smooth_loss"] for point in self.run.history() if point["smooth_loss"] is not None]
        if len(losses) > 1:
            parts += [Text(), loss_chart(losses, self.console.width - 16)]
        for _, sample in self.run.samples_after(0, limit=1):
            lines = sample["text"].splitlines()[:SAMPLE_LINES]
            parts += [Text(), Text(sample_title(sample), style="dim")]
            parts += [Text(visible(line), no_wrap=True, overflow="ellipsis") for line in lines]
        return Panel(Group(*parts), title=escape(self.run.name), title_align="left")


def loss_chart(losses: list[float], width: int) -> RenderableType:
    """The curve as a bar chart of block characters, labelled with its highest and lowest value."""
    grid = Table.grid(padding=(0, 1))
    rows = chart(losses, max(10, width), CHART_ROWS)
    labels = [f"{max(losses):.3f}", *[""] * (CHART_ROWS - 2), f"{min(losses):.3f}"]
    for label, row in zip(labels, rows, strict=True):
        grid.add_row(Text(label, style="dim"), Text(row, style="cyan", no_wrap=True))
    return grid


def chart(values: list[float], width: int, rows: int) -> list[str]:
    """The rows of a bar chart of `values`, averaged into at most `width` columns, the top row first."""
    columns = min(width, len(values))
    edges = [round(i * len(values) / columns) for i in range(columns + 1)]
    means = [sum(values[low:high]) / (high - low) for low, high in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    levels = len(BLOCKS) - 1
    # the lowest bar is one eighth of a block high, so that no column is empty
    heights = [1 + round((rows * levels - 1) * (mean - low) / ((high - low) or 1)) for mean in means]
    return [
        "".join(BLOCKS[max(0, min(levels, height - row * levels))] for height in heights)
        for row in range(rows - 1, -1, -1)
    ]


def summary(status: Status) -> str:
    """One line: state, step, losses in nats per character, speed, time left."""
    parts = [status.state, f"step {status.step:,}" + (f" of {status.steps:,}" if status.steps else "")]
    for name, loss in (("loss", status.loss), ("smooth", status.smooth_loss)):
        if loss is not None:
            parts.append(f"{name} {loss:.4f}")
    if status.validation_loss is not None:
        at = "" if status.validation_step is None else f" at step {status.validation_step:,}"
        parts.append(f"held-out {status.validation_loss:.4f}{at}")
    if status.characters_per_second:
        parts.append(f"{status.characters_per_second:,.0f} characters/s")
    if status.expected_end is not None:
        parts.append(f"{duration(status.expected_end - status.heartbeat)} left")
    parts += status.warnings[-1:]
    if status.reason:
        parts.append(status.reason)
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """`0:07`, `12:34`, `1:02:03`."""
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def sample_title(sample: dict[str, Any]) -> str:
    kind = "passage of the best model" if sample["kind"] == "best" else "sample"
    return f"{kind} at step {sample['step']:,}"


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
