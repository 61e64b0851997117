"""`charloom train`: makes a run of a text, and trains it here or follows the worker that does."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from threadpoolctl import threadpool_limits

from app.commands.progress import make_display
from app.errors import RunExistsError, RunNotFoundError
from app.intake.planning import PLANNED, check_length, make_plan
from app.signals import Stop, stop_on_signals
from app.store.records import Status
from app.store.run import Run
from app.store.run_store import RunStore, default_name
from app.training.speed import measure
from app.training.worker import StoreBusyError, Worker, hold
from model.config import PRESETS, RunConfig
from model.errors import CharloomError, ConfigError
from model.text import read_text

DEFAULT_PRESET = "gru-pair"
LOOK_SECONDS = 0.5
ENDED = ("finished", "failed")


def train(
    store: RunStore, path: Path, preset: str | None, name: str | None, overrides: dict[str, Any]
) -> bool:
    """Train on the text at `path`; say whether the run is finished (False: it was stopped).

    Raises TextError, ConfigError, RunError, OSError; CharloomError with the run's reason if it failed.
    """
    text = read_text(path)
    console = Console()
    if preset is None and overrides.get("minutes") and "steps" not in overrides:
        config = planned(store, name, text, path, overrides, console)
    else:
        config = make_config(preset or DEFAULT_PRESET, overrides)
    check_length(config, len(text))
    run = find_or_create(store, name, config, text, path)
    handler = RichHandler(console=console, show_path=False, show_time=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    console.print(
        f"run {run.name} in {store.root}: {len(text):,} characters", highlight=False, soft_wrap=True
    )
    stop = Stop()
    with stop_on_signals(stop):
        status = finish(store, run, console, stop)
    if status.state == "failed":
        raise CharloomError(f"run {run.name} failed: {status.reason}")
    if status.state == "finished":
        console.print(f"Write with it: charloom generate --model {run.name}", highlight=False)
        return True
    console.print(f"Stopped at step {status.step:,}; the same command goes on from there.", highlight=False)
    return False


def planned(
    store: RunStore, name: str | None, text: str, path: Path, overrides: dict[str, Any], console: Console
) -> RunConfig:
    """What suits text, time and machine, and says what to expect of it; a run begun before stays as it is."""
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    asked = make_config(DEFAULT_PRESET, overrides)
    for run in store.list():
        same = all(getattr(run.config, field) == getattr(asked, field) for field in overrides)
        named = run.name in (name, default_name(path.name))
        if named and same and run.config.preset == PLANNED and run.spec.corpus_sha256 == sha256:
            return run.config
    console.print("Looking at the text and at the speed of this machine …", highlight=False)
    plan = make_plan(text, overrides, len(os.sched_getaffinity(0)), measure)
    for line in plan.described():
        console.print(line, highlight=False, soft_wrap=True)
    return plan.config


def make_config(preset: str, overrides: dict[str, Any]) -> RunConfig:
    """The preset with some fields changed. Raises ConfigError."""
    if preset not in PRESETS:
        raise ConfigError("preset", f"must be one of {', '.join(PRESETS)}. Given: {preset!r}")
    if "steps" in overrides:
        # minutes take precedence: who gives only steps wants the run to end by them
        overrides = {"minutes": 0.0} | overrides
    return PRESETS[preset].replace(**overrides)


def find_or_create(store: RunStore, name: str | None, config: RunConfig, text: str, path: Path) -> Run:
    """The run of this very text and config, which is then continued, or a new one.

    Without a name, it is named after the text's file, with a number where that name is taken.
    Raises RunExistsError if `name` is that of another run.
    """
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    base = name or default_name(path.name)
    for candidate in [base, *(f"{base}-{number}" for number in range(2, 1000) if name is None)]:
        try:
            run = store.get(candidate)
        except RunNotFoundError:
            return store.create(candidate, config, text, path.name)
        if (run.config, run.spec.corpus_sha256) == (config, sha256):
            return run
    raise RunExistsError(
        f"a run named {base!r} exists already, {difference(run, config)}: choose another --name"
    )


def difference(run: Run, config: RunConfig) -> str:
    """In which fields, or else that in its text, a run differs from what is asked for."""
    asked, has = config.to_dict(), run.config.to_dict()
    changes = [f"{name} {has[name]} instead of {asked[name]}" for name in asked if has[name] != asked[name]]
    return f"with {', '.join(changes)}" if changes else "of another text"


def finish(store: RunStore, run: Run, console: Console, stop: Stop) -> Status:
    """Train the run to its end, or show how a worker that holds the store does; its status then."""
    display = make_display(run, console)
    worker = Worker(store, stop, display.show)
    following = False
    if run.status.state == "failed":
        run.write_status(run.status.model_copy(update={"state": "queued", "reason": None}))
    with display.shown(), threadpool_limits(1):
        while True:
            try:
                with hold(store, stop, wait=False) as held:
                    if held and run.status.state not in ENDED:
                        worker.train(run)
            except StoreBusyError:
                if not following:
                    console.print(
                        "A worker holds this store and will train the run in its turn. Here is how it does; "
                        "Ctrl-C ends only this showing.",
                        highlight=False,
                    )
                following = True
            status = run.status
            display.show(status)
            if stop() or status.state in ENDED:
                return status
            time.sleep(LOOK_SECONDS)
