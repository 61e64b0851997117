"""`charloom sweep`: Optuna chooses settings, workers train runs with them, and the best run is kept.

Its only state are the runs `NAME-trial-1`, `NAME-trial-2`, … After an interruption, the same command finds
them and reports them to Optuna, as if the sweep had never stopped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich import box
from rich.console import Console
from rich.table import Table

from app.commands.client import checked, chosen, connected
from app.commands.serve import worker_command, worker_environment
from app.commands.supervisor import Supervisor
from app.commands.terminal import cell, say
from app.intake.findings import counted, printable_name
from app.settings import load_settings
from app.store.records import ENDED
from app.store.run_store import default_name
from model.config import PRESETS, RunConfig
from model.errors import CharloomError

try:
    import optuna
    from optuna.pruners import SuccessiveHalvingPruner
    from optuna.samplers import TPESampler
    from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

    from app.commands.search_space import contains, search_space
    from app.commands.sweep_picture import Line, draw
except ModuleNotFoundError as error:
    raise CharloomError(f"a sweep needs {error.name}: pip install 'charloom[sweep]'") from None

LOOK_SECONDS = 1.0
MINUTES = 2.0  # duration of a trial, unless other options set its end
FIRST_RUNG, FACTOR = 4, 3  # successive halving: validations before the first rung, and factor between rungs
POINTS = 20_000


@dataclass(frozen=True)
class Sweep:
    """The request: `options` apply to every run, `tried` are the settings to try."""

    text: Path
    name: str | None
    trials: int
    parallel: int
    options: dict[str, Any]
    tried: tuple[str, ...]
    keep_all: bool
    picture: Path | None

    @property
    def prefix(self) -> str:
        return f"{(self.name or default_name(self.text.name))[:50]}-trial-"


@dataclass
class Attempt:
    """A run of the sweep: its settings, its held-out losses by measurement, and its state."""

    name: str
    params: dict[str, Any]
    losses: dict[int, float] = field(default_factory=dict)
    state: str = "queued"
    trial: Trial | None = None

    @property
    def best(self) -> float | None:
        return min(self.losses.values(), default=None)


def sweep(asked: Sweep, url: str | None, store: Path | None) -> None:
    """Try settings until all trials have ended; print a table, write a picture, and keep the best run.

    Raises ConfigError, RefusedError (by the server), CharloomError, OSError.
    """
    space = search_space(asked.tried)
    if asked.text.is_dir():
        raise CharloomError(f"{asked.text} is a directory: give a text, a zip of texts, or a document")
    url, store = chosen((url, store))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with ExitStack() as stack:
        client = stack.enter_context(connected(url, store))
        if url is None:
            stack.enter_context(_own_worker(store))
        search = Search(asked, space, client)
        search.find_earlier()
        search.run()
        search.finish()


@contextmanager
def _own_worker(store: Path | None) -> Iterator[None]:
    """A worker of the local store for the duration of the sweep, in addition to any others."""
    settings = load_settings(store=store)
    if "log_level" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log_level": "error"})
    worker = Supervisor(worker_command(), worker_environment(settings))
    worker.start()
    try:
        yield
    finally:
        worker.stop()


class Search:
    """The trials of a sweep, as runs of the server behind `client`."""

    def __init__(self, asked: Sweep, space: dict[str, Any], client: httpx.Client) -> None:
        self.asked, self.space, self.client = asked, space, client
        self.attempts: dict[str, Attempt] = {}
        self.every: int | None = None  # updates between measurements, the same in all trials
        # asynchronous successive halving: at each rung the worst two thirds of the trials end
        self.study = optuna.create_study(
            sampler=TPESampler(seed=0, constant_liar=True),
            pruner=SuccessiveHalvingPruner(min_resource=FIRST_RUNG, reduction_factor=FACTOR),
        )

    def find_earlier(self) -> None:
        """Find the existing runs of this sweep. Raises CharloomError if they were trained on another text."""
        runs = checked(self.client.get("/runs")).json()["runs"]
        name = re.compile(re.escape(self.asked.prefix) + r"\d+")
        for run in runs:
            if not name.fullmatch(run["name"]):
                continue
            if run["corpus"] != printable_name(self.asked.text.name):
                raise CharloomError(
                    f"run {run['name']} was trained on another text, {run['corpus']}: choose another --name"
                )
            attempt = Attempt(run["name"], self._params(run))
            self.attempts[attempt.name] = attempt
            self._measured_every(run)
            self._look(attempt, run)
            if attempt.state in ENDED:
                self.study.add_trial(self._frozen(attempt))
            else:
                self.study.enqueue_trial(attempt.params)
                attempt.trial = self._ask()
                self._report(attempt)
        if self.attempts:
            say(f"continuing with {counted(len(self.attempts), 'existing run')}")

    def run(self) -> None:
        """Run trials until the requested number has ended."""
        while True:
            active = [one for one in self.attempts.values() if one.state not in ENDED]
            while len(active) < self.asked.parallel and len(self.attempts) < self.asked.trials:
                active.append(self._start())
            if not active:
                return
            time.sleep(LOOK_SECONDS)
            for attempt in active:
                self._follow(attempt)

    def _ask(self) -> Trial:
        return self.study.ask(self.space)

    def _start(self) -> Attempt:
        trial = self._ask()
        number = 1 + max((int(name.rpartition("-")[2]) for name in self.attempts), default=0)
        name = f"{self.asked.prefix}{number}"
        given = {"minutes": MINUTES} if not {"steps", "minutes"} & self.asked.options.keys() else {}
        given |= {key: value for key, value in self.asked.options.items() if value is not None}
        given |= {"validate_every": self.every} if self.every else {}
        with self.asked.text.open("rb") as content:
            files = [("file", (printable_name(self.asked.text.name), content))]
            checked(self.client.post("/runs", params=given | trial.params | {"name": name}, files=files))
        run = checked(self.client.get(f"/runs/{name}")).json()
        self._measured_every(run)
        attempt = self.attempts[name] = Attempt(name, dict(trial.params), trial=trial)
        say(f"{name}: {_described(attempt.params)}")
        return attempt

    def _measured_every(self, run: dict[str, Any]) -> None:
        usual = PRESETS.get(run["preset"], RunConfig()).validate_every
        self.every = self.every or run["settings"].get("validate_every", usual)
        if not self.every:
            raise CharloomError(
                "a sweep needs a held-out loss: leave out validate_every=0, or take another preset"
            )

    def _params(self, run: dict[str, Any]) -> dict[str, Any]:
        """The values that a run has for the settings to try."""
        usual = PRESETS.get(run["preset"], RunConfig()).to_dict()
        params = {name: run["settings"].get(name, usual[name]) for name in self.space}
        for name, distribution in self.space.items():
            if not contains(distribution, params[name]):
                raise CharloomError(
                    f"run {run['name']} has {name} {_short(params[name])}, which is not tried now: "
                    "choose another --name"
                )
        return params

    def _look(self, attempt: Attempt, run: dict[str, Any]) -> None:
        """Update an attempt's state and held-out losses."""
        answer = self.client.get("/loss-curve.json", params={"model": attempt.name, "points": POINTS})
        for point in checked(answer).json()["points"]:
            if point["validation_loss"] is not None and self.every:
                attempt.losses[point["step"] // self.every] = point["validation_loss"]
        attempt.state = run["state"]

    def _follow(self, attempt: Attempt) -> None:
        self._look(attempt, checked(self.client.get(f"/runs/{attempt.name}")).json())
        if attempt.trial is None:
            return
        unpromising = self._report(attempt)
        if unpromising and attempt.state not in ENDED:
            checked(self.client.patch(f"/runs/{attempt.name}", json={"action": "stop"}))
            return
        if attempt.state in ENDED:
            final = self._frozen(attempt)
            self.study.tell(attempt.trial, final.value, state=final.state)
            say(f"{attempt.name} {_ending(attempt)}")

    def _report(self, attempt: Attempt) -> bool:
        """Report new losses to Optuna, in order; return whether it prunes the trial."""
        trial, known = attempt.trial, {}
        if trial is not None:
            known = self.study.trials[trial.number].intermediate_values
            for measurement, loss in sorted(attempt.losses.items()):
                if measurement not in known:
                    trial.report(loss, measurement)
                    if trial.should_prune():
                        return True
        return False

    def _frozen(self, attempt: Attempt) -> FrozenTrial:
        """An ended run as a trial of Optuna."""
        states = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
        state = TrialState.FAIL if attempt.best is None else states.get(attempt.state, TrialState.FAIL)
        return create_trial(
            state=state,
            value=attempt.best if state is TrialState.COMPLETE else None,
            params=attempt.params,
            distributions=self.space,
            intermediate_values=dict(attempt.losses),
        )

    def finish(self) -> None:
        """Print the table, write the picture, and delete all runs but the best. Raises OSError."""
        order = sorted(self.attempts.values(), key=lambda one: (one.state != "finished", one.best or 99.0))
        table = Table("run", *self.space, "held-out loss", "updates", "", box=box.SIMPLE)
        table.columns[0].overflow = "fold"
        for one in order:
            loss = "" if one.best is None else f"{one.best:.4f}"
            updates = f"{max(one.losses, default=0) * (self.every or 0):,}"
            values = (
                one.name,
                *(_short(one.params[name]) for name in self.space),
                loss,
                updates,
                _ending(one),
            )
            table.add_row(*map(cell, values))
        Console().print(table)
        best = order[0] if order and order[0].state == "finished" and order[0].best is not None else None
        picture = self.asked.picture or Path(f"{self.asked.prefix.removesuffix('-trial-')}.svg")
        lines = [Line(one.name, dict(sorted(one.losses.items())), one is best) for one in order]
        draw(lines, self.every or 1, picture)
        say(f"wrote {picture}")
        if best is None:
            raise CharloomError("no trial finished: all runs are kept")
        if not self.asked.keep_all:
            for one in order[1:]:
                checked(self.client.delete(f"/runs/{one.name}", params={"force": True}))
        say(
            f"The best is {best.name}, with {_described(best.params)}. Write with it: "
            f"charloom generate --model {best.name}"
        )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _described(params: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in params.items())


def _ending(attempt: Attempt) -> str:
    if attempt.state == "stopped":
        return "ended early"
    return attempt.state
