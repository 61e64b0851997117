"""Pure functions that draw the loss curve and the gradient check as SVG or PNG, in light or dark colours.

They use matplotlib's object-oriented interface, not pyplot's global state. Drawing takes tenths of a second
and holds the GIL, so the server calls them in a helper process.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from app.store.loss_curves import Curve, Record

Format = Literal["svg", "png"]
Theme = Literal["light", "dark"]
Shape = Literal["wide", "narrow"]

DPI = 160
MARGIN = 0.15  # inches around the picture
BASELINES = {"uniform": "uniform: ln K =", "unigram": "single characters", "5-gram": "5-gram"}


@dataclass(frozen=True)
class Palette:
    """Colours of a theme; the contrast of text against the background is at least 4.5."""

    background: str
    text: str
    faint: str
    grid: str
    training: str
    smooth: str
    held_out: str
    best: str
    failed: str


PALETTES: dict[str, Palette] = {
    "light": Palette(
        background="#ffffff",
        text="#1c2430",
        faint="#5d6878",
        grid="#e6e9ee",
        training="#a9c3ea",
        smooth="#1f5fbf",
        held_out="#c2540a",
        best="#0f7b4f",
        failed="#b3261e",
    ),
    "dark": Palette(
        background="#161b22",
        text="#e6edf3",
        faint="#9aa7b5",
        grid="#2a323d",
        training="#47689a",
        smooth="#79b0ff",
        held_out="#ffab66",
        best="#56d39b",
        failed="#ff8a80",
    ),
}


def draw_loss_curve(curve: Curve, format: Format, theme: Theme, shape: Shape = "wide") -> bytes:
    """Training, smooth and held-out loss over updates, with checkpoints, the best one and baselines marked.

    The shape "narrow" is readable on a phone.
    """
    palette, wide = PALETTES[theme], shape == "wide"
    figure, axes = _figure(palette, *((9.0, 5.0) if wide else (4.8, 4.2)))
    axes.set_title(_curve_title(curve), loc="left", color=palette.text, fontsize=12 if wide else 10, pad=12)
    axes.set_xlabel("updates")
    axes.set_ylabel("loss (nats per character)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(7 if wide else 4, steps=[1, 2, 5, 10], integer=True))
    drawn = _draw_lines(axes, curve, palette)
    if not drawn:
        axes.text(0.5, 0.5, "no training yet", transform=axes.transAxes, ha="center", color=palette.faint)
    _mark_baselines(axes, curve, palette)
    _set_limits(axes, curve)
    _mark_checkpoints(axes, curve, palette)
    _mark_warnings(axes, curve, palette)
    if curve.updates_per_epoch and curve.points:
        _epoch_axis(axes, curve.updates_per_epoch, palette)
    if curve.sequence_length:
        _sum_axis(axes, curve.sequence_length, palette)
    _legend(figure, axes, palette, columns=5 if wide else 2)
    return _save(figure, format)


def draw_gradcheck(
    names: Sequence[str],
    errors: Sequence[float],
    limits: Sequence[float],
    figures: Sequence[float | None],
    title: str,
    format: Format,
    theme: Theme,
    shape: Shape = "wide",
) -> bytes:
    """Relative error of every parameter on a log scale, with its limit and the figure of the assignment."""
    palette = PALETTES[theme]
    wide = shape == "wide"
    figure, axes = _figure(palette, 9.0 if wide else 4.8, 1.9 + 0.42 * len(names))
    axes.set_title(title, loc="left", color=palette.text, fontsize=12 if wide else 9, pad=12)
    axes.set_xscale("log")
    axes.set_xlabel("relative error  ‖ga − gn‖ / (‖ga‖ + ‖gn‖)")
    axes.grid(axis="y", visible=False)
    rows = np.arange(len(names))
    floor = 1e-17  # errors of 0 are drawn here, since a log scale has no 0
    shown = np.maximum(errors, floor)
    passed = np.less(errors, limits)
    left = min(floor, *shown) if len(shown) else floor
    colours = [palette.smooth if ok else palette.failed for ok in passed]
    axes.hlines(rows, left, shown, color=colours, linewidth=2.5)
    axes.scatter(shown, rows, s=48, color=colours, zorder=3, label="measured here")
    axes.scatter(limits, rows, marker="|", s=160, linewidth=2, color=palette.faint, label="limit", zorder=3)
    known = [(figure_, row) for figure_, row in zip(figures, rows, strict=True) if figure_ is not None]
    if known:
        xs, ys = zip(*known, strict=True)
        axes.scatter(xs, ys, marker="D", s=34, color=palette.held_out, label="the assignment's", zorder=3)
    axes.set_yticks(rows, labels=list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(left, 10 * max([*limits, *shown, *(x for x, _ in known)], default=1.0))
    _legend(figure, axes, palette, columns=3)
    return _save(figure, format)


def _figure(palette: Palette, width: float, height: float) -> tuple[Figure, Axes]:
    layout = ConstrainedLayoutEngine(w_pad=MARGIN, h_pad=MARGIN)
    figure = Figure(figsize=(width, height), layout=layout, facecolor=palette.background)
    axes = figure.add_subplot()
    axes.set_facecolor(palette.background)
    axes.grid(color=palette.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=palette.faint, length=0, labelsize=9.5)
    axes.tick_params(axis="x", pad=7)  # clear of the marks on the axis
    axes.xaxis.label.set_color(palette.text)
    axes.yaxis.label.set_color(palette.text)
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(palette.faint)
    return figure, axes


def _curve_title(curve: Curve) -> str:
    of = f" of {curve.steps:,}" if curve.steps else ""
    one = curve.step == 1 and not of
    return f"{curve.run} · {curve.step:,}{of} {'update' if one else 'updates'} · {curve.state}"


def _draw_lines(axes: Axes, curve: Curve, palette: Palette) -> bool:
    """Draw the curves that have points; return whether there are any. Only short curves get markers."""
    steps, loss = _column(curve.points, "loss")
    smooth_steps, smooth = _column(curve.points, "smooth_loss")
    few = len(steps) <= 40
    if len(steps):
        axes.plot(
            steps,
            loss,
            color=palette.training,
            linewidth=0.9,
            marker="o" if few else "",
            markersize=4,
            label="training loss, each window",
            zorder=2,
        )
    if len(smooth_steps):
        axes.plot(smooth_steps, smooth, color=palette.smooth, linewidth=2, label="smooth loss", zorder=4)
    held_out_steps, held_out = _column(curve.points, "validation_loss")
    if len(held_out):
        axes.plot(
            held_out_steps,
            held_out,
            color=palette.held_out,
            linewidth=1.8,
            marker="o" if len(held_out) <= 40 else "",
            markersize=4,
            label="held-out loss",
            zorder=5,
        )
    return bool(len(steps) or len(held_out))


def _column(points: Sequence[Record], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    known = [(point["step"], point[name]) for point in points if point.get(name) is not None]
    pairs = np.array(known, np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _set_limits(axes: Axes, curve: Curve) -> None:
    """Fit the axes to the values, ignoring outliers."""
    values = [*_column(curve.points, "loss")[1], *_column(curve.points, "validation_loss")[1]]
    if values:
        top = max([float(np.quantile(values, 0.999)), *curve.baselines.values()])
        best = [curve.best[1]] if curve.best else []
        bottom = min([float(np.quantile(values, 0.001)), *best, *curve.baselines.values()])
        margin = 0.08 * max(top - bottom, 0.1)
        axes.set_ylim(max(0.0, bottom - 2 * margin), top + margin)
    last = max(curve.points[-1]["step"] if curve.points else 0, *curve.checkpoints, 1)
    axes.set_xlim(-0.01 * last, 1.01 * last)


def _mark_baselines(axes: Axes, curve: Curve, palette: Palette) -> None:
    """Draw the losses of simple models as labelled lines."""
    for name, loss in curve.baselines.items():
        axes.axhline(loss, color=palette.faint, linewidth=1, linestyle=(0, (4, 4)), zorder=1)
        axes.annotate(
            f"{BASELINES.get(name, name)} {loss:.2f}",
            (0.995, loss),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color=palette.faint,
            fontsize=9,
            bbox={"facecolor": palette.background, "alpha": 0.8, "linewidth": 0, "pad": 1},
            zorder=6,
        )


def _mark_checkpoints(axes: Axes, curve: Curve, palette: Palette) -> None:
    if curve.checkpoints:
        axes.plot(
            curve.checkpoints,
            np.zeros(len(curve.checkpoints)),
            transform=axes.get_xaxis_transform(),
            linestyle="",
            marker="^",
            markersize=6,
            color=palette.faint,
            label="checkpoint kept",
            clip_on=False,
            zorder=6,
        )
    if curve.best:
        step, loss = curve.best
        axes.plot(
            step,
            loss,
            linestyle="",
            marker="*",
            markersize=14,
            color=palette.best,
            markeredgecolor=palette.background,
            label=f"best: {loss:.3f} at {step:,}",
            zorder=7,
        )


def _mark_warnings(axes: Axes, curve: Curve, palette: Palette) -> None:
    """Mark the steps of rollbacks, and the range in which the run overfits."""
    for index, step in enumerate(sorted(set(curve.rollbacks))):
        label = "rolled back to here, rate halved" if index == 0 else None
        axes.axvline(step, color=palette.failed, linewidth=1.2, linestyle=":", label=label, zorder=3)
    if curve.overfitting_since is not None:
        axes.axvspan(
            curve.overfitting_since,
            max(curve.step, curve.overfitting_since),
            color=palette.held_out,
            alpha=0.12,
            linewidth=0,
            label="overfitting",
            zorder=0,
        )


def _epoch_axis(axes: Axes, updates: float, palette: Palette) -> None:
    """Add a scale in epochs."""
    second = axes.secondary_xaxis(
        "top", functions=(partial(np.multiply, 1 / updates), partial(np.multiply, updates))
    )
    second.set_xlabel("epochs", color=palette.faint, fontsize=9)
    second.tick_params(colors=palette.faint, length=0, labelsize=9)
    second.spines["top"].set_visible(False)


def _sum_axis(axes: Axes, length: int, palette: Palette) -> None:
    """Add a scale of the loss summed over a sequence, as the assignment reports it."""
    second = axes.secondary_yaxis(
        "right", functions=(partial(np.multiply, length), partial(np.multiply, 1 / length))
    )
    second.set_ylabel(f"summed over {length} characters (nats)", color=palette.text)
    second.tick_params(colors=palette.faint, length=0, labelsize=9.5)
    second.spines["right"].set_visible(False)


def _legend(figure: Figure, axes: Axes, palette: Palette, columns: int) -> None:
    """Add a legend below the axes."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            labelcolor=palette.text,
            fontsize=9,
            columnspacing=1.5,
            handletextpad=0.6,
        )


def _save(figure: Figure, format: Format) -> bytes:
    """Encode the picture; the same content gives the same bytes."""
    metadata = {"Date": None} if format == "svg" else {}
    target = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "charloom"}):
        figure.savefig(target, format=format, dpi=DPI, metadata=metadata)
    return target.getvalue()
