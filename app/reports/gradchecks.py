"""Gradient checks on request, in a helper process."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from threadpoolctl import threadpool_limits

from app.engine.loaded_model import LoadedModel
from app.reports.helper import Helper, Results
from model.cells import Array
from model.config import PRESETS
from model.gradcheck import (
    OWN_IDS,
    OWN_VOCABULARY,
    STEPS,
    GradientProblem,
    ParameterCheck,
    assignment_problem,
    check,
    make_problem,
    problem_for,
)
from model.network import Network, NetworkConfig

Method = Literal["centred", "complex-step"]

ASSIGNMENT = "assignment"
ORDER = ("layer0.W", "V", "layer0.U", "layer0.b", "c")  # the assignment's, for networks with one layer
ELEMENTS = 100  # compared per tensor, except for the assignment's network: all would take minutes
LONGEST = 25  # maximum characters that a checkpoint is checked on, as in the assignment
FRESH_SIZES = {"layers": 2, "hidden": 20}
WAITING = 8
CACHED = 64
NICE = 10


@dataclass(frozen=True)
class CheckTask:
    """What to check: a copy of a checkpoint's network, a new network, or the assignment's."""

    method: Method
    cell: str | None = None
    network: NetworkConfig | None = None
    parameters: Array | None = None
    length: int = 0


@dataclass(frozen=True)
class Report:
    """A finished check. `step_size` is h, `seconds` its duration."""

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
    """Runs each check once, in a helper process. For one event loop.

    Args:
        seconds: maximum duration of a check.
        shared: directory of the results that several processes share.
    """

    def __init__(self, seconds: float, shared: Path | None = None) -> None:
        results = Results(shared, CACHED, encode, decode) if shared else None
        self.helper = Helper(
            "gradient check", seconds, nice=NICE, waiting=WAITING, cached=CACHED, shared=results
        )

    async def report(self, model: LoadedModel | None, method: Method, cell: str | None = None) -> Report:
        """The check of a checkpoint, of a new network with `cell`, or of the assignment's network.

        Results are cached by the checkpoint's digest. Raises as `Helper.result` does.
        """
        name = model.id if model else cell or ASSIGNMENT
        key = ("checkpoint", model.digest, method) if model else ("fresh", name, method)
        report = await self.helper.result(key, run_check, name, task_of(model, method, cell))
        # the same weights may have several names
        return report if report.model == name else dataclasses.replace(report, model=name)


def task_of(model: LoadedModel | None, method: Method, cell: str | None = None) -> CheckTask:
    """The helper's task; it contains the weights, because training may replace the checkpoint at any time."""
    if model is None:
        return CheckTask(method, cell)
    length = min(model.config.sequence_length, LONGEST)
    return CheckTask(method, None, model.network.config, model.network.flat, length)


def encode(report: Report) -> bytes:
    """The report as JSON, without loss of precision."""
    return json.dumps(dataclasses.asdict(report)).encode()


def decode(data: bytes) -> Report:
    return Report(**json.loads(data))


def run_check(name: str, task: CheckTask) -> Report:
    """Run the check. Raises CharloomError. Takes seconds: not for an event loop."""
    began = time.perf_counter()
    # at these sizes one thread is fastest, and it leaves the other cores to requests
    with threadpool_limits(1):
        problem = build_problem(task)
        results = check(problem, task.method, elements=None if problem.assignment else ELEMENTS)
        network = problem.network.config
        parameters = in_order([describe(result) for result in results], network.layers)
    return Report(
        model=name,
        method=task.method,
        step_size=STEPS[task.method],
        cell=network.cell,
        hidden=network.hidden,
        layers=network.layers,
        sequence_length=len(problem.inputs),
        vocabulary=network.vocabulary,
        seconds=round(time.perf_counter() - began, 2),
        parameters=parameters,
    )


def in_order(parameters: list[dict[str, Any]], layers: int) -> list[dict[str, Any]]:
    """The rows of a network with one layer in the assignment's order, followed by all others."""
    if layers > 1:
        return parameters
    return sorted(parameters, key=lambda row: (*ORDER, row["name"]).index(row["name"]))


def build_problem(task: CheckTask) -> GradientProblem:
    """The problem to check; a checkpoint gets random characters, because its text may be missing."""
    if task.network is not None and task.parameters is not None:
        ids = np.random.default_rng(0).integers(task.network.vocabulary, size=task.length + 1)
        return problem_for(Network(task.network, task.parameters), ids, task.length, 1)
    if task.cell:
        config = PRESETS["classic"].replace(cell=task.cell, **FRESH_SIZES)
        return make_problem(config, OWN_VOCABULARY, OWN_IDS)
    return assignment_problem(OWN_VOCABULARY, OWN_IDS)


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
