"""Gradient checks on request, in a helper process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from threadpoolctl import threadpool_limits

from app.engine.models import LoadedModel, ModelStore
from app.errors import NotReadyError
from app.reports.helper import Helper
from app.store.run_store import RunStore
from model.checkpoint import load
from model.config import PRESETS
from model.gradcheck import (
    STEPS,
    GradientProblem,
    ParameterCheck,
    assignment_problem,
    check,
    make_problem,
    problem_for,
)
from model.text import read_text
from model.vocabulary import Vocabulary

Method = Literal["centred", "complex-step"]
Cell = Literal["elman", "gru", "lstm"]

ASSIGNMENT = "assignment"
ELEMENTS = 100  # compared of each tensor of other networks than that, which would take minutes whole
FRESH_SIZES = {"layers": 2, "hidden": 20}
WAITING = 8
CACHED = 64
NICE = 10


@dataclass(frozen=True)
class CheckTask:
    """What a helper is asked to check: a checkpoint, a fresh network of a cell, or the assignment's."""

    method: Method
    store: str
    corpus: str
    run: str | None
    checkpoint: str | None
    cell: Cell | None


@dataclass(frozen=True)
class Report:
    """A finished check. `step_size` is h, `seconds` the time it took."""

    model: str
    method: Method
    step_size: float
    cell: str
    hidden: int
    layers: int
    sequence_length: int
    vocabulary: int
    seconds: float
    parameters: list[dict[str, Any]]

    @property
    def passed(self) -> bool:
        return all(row["passed"] for row in self.parameters)


class GradientChecks:
    """Runs checks for one event loop, each once, in a helper process.

    Args:
        seconds: longest a check may take.
    """

    def __init__(self, models: ModelStore, corpus: Path, seconds: float) -> None:
        self.models, self.corpus = models, corpus
        self.helper = Helper("gradient check", seconds, nice=NICE, waiting=WAITING, cached=CACHED)

    async def report(self, model: LoadedModel | None, method: Method, cell: Cell | None = None) -> Report:
        """The check of a checkpoint, of a fresh network of that cell, or of the assignment's, fresh.

        Raises as `Helper.result`.
        """
        name = model.id if model else cell or ASSIGNMENT
        key = (name, model.digest if model else "", method)
        return await self.helper.result(key, run_check, name, self._order(model, method, cell))

    def _order(self, model: LoadedModel | None, method: Method, cell: Cell | None) -> CheckTask:
        run = model.run if model else self.models.current.run if self.models.ready else None
        return CheckTask(
            method=method,
            store=str(self.models.runs.root),
            corpus=str(self.corpus),
            run=run,
            checkpoint=str(model.path) if model else None,
            cell=cell,
        )


def run_check(name: str, order: CheckTask) -> Report:
    """Check what the order says. Raises CharloomError or OSError. Takes seconds: not for an event loop."""
    began = time.perf_counter()
    # one thread is faster than several at these sizes, and leaves the other cores to the requests
    with threadpool_limits(1):
        problem = build_problem(order)
        results = check(problem, order.method, elements=None if problem.assignment else ELEMENTS)
        parameters = [describe(result) for result in results]
    network = problem.network.config
    return Report(
        model=name,
        method=order.method,
        step_size=STEPS[order.method],
        cell=network.cell,
        hidden=network.hidden,
        layers=network.layers,
        sequence_length=len(problem.inputs),
        vocabulary=network.vocabulary,
        seconds=round(time.perf_counter() - began, 2),
        parameters=parameters,
    )


def build_problem(order: CheckTask) -> GradientProblem:
    """Raises CharloomError or OSError if the text or the checkpoint cannot be used."""
    run = RunStore(order.store).get(order.run) if order.run else None
    if order.checkpoint and run:
        checkpoint = load(Path(order.checkpoint))
        length = checkpoint.config.sequence_length
        ids = checkpoint.vocabulary.encode(run.text()[: length + 1])
        return problem_for(checkpoint.network(), ids, length, 1)
    if run is None and not Path(order.corpus).exists():
        raise NotReadyError(f"there is no text to check on: no run yet, and no file {order.corpus}")
    text = run.text() if run else read_text(Path(order.corpus))
    vocabulary = Vocabulary.from_text(text)
    classic = PRESETS["classic"]
    ids = vocabulary.encode(text[: classic.sequence_length + 1])
    if order.cell:
        return make_problem(classic.replace(cell=order.cell, **FRESH_SIZES), vocabulary, ids)
    return assignment_problem(vocabulary, ids)


def describe(result: ParameterCheck) -> dict[str, Any]:
    """One row of the report."""
    return {
        "name": result.name,
        "shape": list(result.shape),
        "relative_error": result.relative_error,
        "limit": result.limit,
        "assignment_figure": result.assignment_figure,
        "passed": result.passed,
        "checked": result.checked,
    }
