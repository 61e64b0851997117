"""Gradient checks on request: each in a process of its own, one at a time, bounded in time, cached.

As a program (`python -m app.reports.gradchecks`) this is that process: it writes one JSON line a parameter.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from app.engine.models import LoadedModel, ModelStore
from app.errors import DeadlineError, DrainingError, NotReadyError, OverloadedError, RenderError
from app.store.run_store import RunStore
from model.checkpoint import load
from model.config import PRESETS
from model.errors import CharloomError
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
NICE = 10


@dataclass(frozen=True)
class CheckTask:
    """What a process is asked to check: a checkpoint, a fresh network of a cell, or the assignment's."""

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
    """Runs checks for one event loop.

    Args:
        seconds: longest a check may take; one that takes longer is ended.
    """

    def __init__(self, models: ModelStore, corpus: Path, seconds: float) -> None:
        self.models, self.corpus, self.seconds = models, corpus, seconds
        self._lock = asyncio.Lock()
        self._tasks: dict[tuple[str, ...], asyncio.Task[Report]] = {}

    async def report(self, model: LoadedModel | None, method: Method, cell: Cell | None = None) -> Report:
        """The check of a checkpoint, of a fresh network of that cell, or of the assignment's, fresh.

        Raises OverloadedError, DeadlineError, DrainingError, or RenderError with the reason.
        """
        name = model.id if model else cell or ASSIGNMENT
        key = (name, model.digest if model else "", method)
        task = self._tasks.get(key)
        if task is None:
            waiting = sum(not task.done() for task in self._tasks.values())
            if waiting >= WAITING:
                raise OverloadedError(f"{waiting} gradient checks are waiting", retry_after=self.seconds)
            task = self._tasks[key] = asyncio.create_task(self._run(name, self._order(model, method, cell)))
            task.add_done_callback(lambda done: self._done(key, done))
        try:
            # a client that goes away must not end the check for the others who wait for it
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise DrainingError("the server is stopping; ask another, or again in a moment") from None
            raise

    def stop(self) -> None:
        """End what is running, and what waits; those who asked get DrainingError."""
        for task in self._tasks.values():
            task.cancel()

    async def close(self) -> None:
        """Stop, and wait until the last process has ended."""
        self.stop()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

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

    def _done(self, key: tuple[str, ...], task: asyncio.Task[Report]) -> None:
        if task.cancelled() or task.exception() is not None:
            del self._tasks[key]

    async def _run(self, name: str, order: CheckTask) -> Report:
        async with self._lock:
            began = time.perf_counter()
            lines = await self._process(order)
            if not lines or "error" in lines[-1]:
                raise RenderError(
                    f"the gradient check failed: {lines[-1]['error'] if lines else 'no result'}"
                )
            return Report(
                model=name,
                method=order.method,
                step_size=STEPS[order.method],
                seconds=round(time.perf_counter() - began, 2),
                parameters=lines[1:],
                **lines[0],
            )

    async def _process(self, order: CheckTask) -> list[dict[str, Any]]:
        process = await asyncio.create_subprocess_exec(
            # -P: the current folder may hold an `app` of its own
            *(sys.executable, "-P", "-m", "app.reports.gradchecks", json.dumps(asdict(order))),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            # one thread is faster than several at these sizes, and leaves the others to the requests
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        try:
            async with asyncio.timeout(self.seconds):
                output, _ = await process.communicate()
        except TimeoutError:
            raise DeadlineError(f"the gradient check took longer than {self.seconds:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return [json.loads(line) for line in output.splitlines()]


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


def main(arguments: list[str]) -> None:
    """Check what the order in `arguments` says; one JSON line for the problem, one for each parameter."""
    order = CheckTask(**json.loads(arguments[0]))
    os.nice(NICE)
    try:
        problem = build_problem(order)
        network = problem.network.config
        sizes = {"cell": network.cell, "hidden": network.hidden, "layers": network.layers}
        shape = {"sequence_length": len(problem.inputs), "vocabulary": network.vocabulary}
        write(sizes | shape)
        for result in check(problem, order.method, elements=None if problem.assignment else ELEMENTS):
            write(describe(result))
    except (CharloomError, OSError) as error:
        write({"error": str(error)})


def write(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
