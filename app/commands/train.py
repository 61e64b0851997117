"""`charloom train`: creates a run for a text, and trains it or shows how a worker trains it."""

from __future__ import annotations

import hashlib
import logging
import shlex
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from filelock import Timeout
from rich.console import Console
from rich.logging import RichHandler
from threadpoolctl import threadpool_limits

from app.commands.progress import make_display
from app.errors import ConflictError, RunExistsError, RunNotFoundError
from app.intake.expectations import NO_QUEUE, make_plan, queue_of
from app.intake.findings import Finding, as_details, printable_name
from app.intake.needs import check_needs
from app.intake.planning import PLANNED, check_apart, check_length, make_config, usual
from app.intake.text import read_text
from app.settings import load_settings
from app.signals import Stop, stop_on_signals
from app.store.capacity import of_this_process, of_workers, whole_cores
from app.store.groups import add_members, members_of
from app.store.records import ENDED, Status
from app.store.run import Run
from app.store.run_store import RunStore, default_name
from app.store.space import Budget
from app.streams import VisibleFormatter, visible
from app.training.speed import measure
from app.training.trainer import Cadence
from app.training.worker import Worker, prepare
from model.config import RunConfig
from model.errors import CharloomError

LOOK_SECONDS = 0.5


def train(
    store: RunStore,
    path: Path,
    preset: str | None,
    name: str | None,
    encoding: str | None,
    overrides: dict[str, Any],
    apart: bool = False,
) -> bool:
    """Train on the text at `path`; return whether the run is finished (False: Ctrl-C interrupted it).

    Raises TextError, ConfigError, RunError, OSError; ConflictError if the run was paused or stopped;
    CharloomError with the run's reason if it failed.
    """
    text, findings = read_text(path, encoding or "utf-8")
    console = Console(markup=False, highlight=False)
    for finding in findings:
        place = "" if finding.position is None else f" (at {finding.position:,})"
        console.print(visible(f"{finding.level}: {finding.message}{place}"))
    config = make_config(preset, overrides) if preset else usual(len(text), overrides)
    members = config.members
    if apart:  # each member is trained as a single network
        check_apart(members)
        overrides = {**overrides, "members": 1}
    if preset is None and config.minutes:
        config = planned(store, name, text, path, overrides, console)
    config = config.replace(members=members) if apart else config
    check_length(config, len(text))
    worker = of_workers(store) if store.leases.at_work_here() else of_this_process()
    trained = config.replace(members=1) if apart else config
    check_needs(trained, len(text), len(set(text)), worker, Budget(store, load_settings().max_store_bytes))
    run = find_or_create(store, name, config, text, path, findings, apart)
    handler = RichHandler(console=console, show_path=False, show_time=False)
    handler.setFormatter(VisibleFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    console.print(visible(f"run {run.name} in {store.root}: {len(text):,} characters"), soft_wrap=True)
    stop = Stop()
    with stop_on_signals(stop):
        for part in [*members_of(store, run), run]:
            follow(store, part, console, stop)
            if part.standing.state != "finished":
                run = part
                break
    status = run.standing
    if status.state == "failed":
        raise CharloomError(f"run {run.name} failed: {status.reason}")
    if status.state == "finished":
        console.print(f"Write with it: charloom generate --model {run.name}")
        return True
    if status.state == "stopped" or status.held:
        raise ConflictError(
            f"run {run.name} is {status.state} at step {status.step:,}: resume it with "
            f"`{resume_command(store, run)}`, then run the same command again"
        )
    console.print(f"Stopped at step {status.step:,}; the same command continues from there.")
    return False


def planned(
    store: RunStore, name: str | None, text: str, path: Path, overrides: dict[str, Any], console: Console
) -> RunConfig:
    """Plan settings for the text, the time and the machine, and print them; an earlier run keeps its own."""
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    asked = usual(len(text), overrides)
    for run in store.list():
        same = all(getattr(run.config, field) == getattr(asked, field) for field in overrides)
        named = run.name in (name, default_name(path.name))
        if named and same and run.config.preset == PLANNED and run.spec.corpus_sha256 == sha256:
            return run.config
    console.print("Checking the text and the speed of this machine ...")
    queue = queue_of(store) if store.leases.at_work_here() else NO_QUEUE
    plan = make_plan(text, overrides, whole_cores(), partial(measure, shared=queue.runs > 0), queue)
    for line in plan.described():
        console.print(line, soft_wrap=True)
    return plan.config


def find_or_create(
    store: RunStore,
    name: str | None,
    config: RunConfig,
    text: str,
    path: Path,
    findings: Iterable[Finding] = (),
    apart: bool = False,
) -> Run:
    """The existing run with this text and config, which is then continued, or a new one.

    Without a name, it is named after the text's file, with a number if that name is taken.
    Raises RunExistsError if another run has the given name.
    """
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    base = name or default_name(path.name)
    for candidate in [base, *(f"{base}-{number}" for number in range(2, 1000) if name is None)]:
        try:
            run = store.get(candidate)
        except RunNotFoundError:
            corpus = printable_name(path.name)
            run = store.create(candidate, config, text, corpus, findings=as_details(findings), apart=apart)
            add_members(store, run)
            return run
        if (run.config, run.spec.corpus_sha256, run.spec.apart) == (config, sha256, apart):
            return run
    raise RunExistsError(
        f"a run named {base!r} exists already, {difference(run, config, apart)}: choose another --name"
    )


def difference(run: Run, config: RunConfig, apart: bool = False) -> str:
    """Describe how a run differs from the request: in its fields, or else in its text."""
    asked, has = config.to_dict(), run.config.to_dict()
    changes = [f"{name} {has[name]} instead of {asked[name]}" for name in asked if has[name] != asked[name]]
    if changes:
        return f"with {', '.join(changes)}"
    if run.spec.apart != apart:
        return f"trained {'apart' if run.spec.apart else 'together'}"
    return "on another text"


def resume_command(store: RunStore, run: Run) -> str:
    """The command that resumes a run of this store."""
    usual = RunStore(load_settings().store).root == store.root
    return f"charloom runs resume {run.name}{'' if usual else f' --store {shlex.quote(str(store.root))}'}"


def follow(store: RunStore, run: Run, console: Console, stop: Stop) -> None:
    """Train the run, or show how another process trains it, until it ends or is paused.

    If a worker on this machine is training another run, this run waits in its queue.
    Raises RunNotFoundError if it is deleted meanwhile, StoreBusyError, OSError.
    """
    display = make_display(run, console)

    def show(status: Status) -> None:
        with suppress(OSError):  # raised by reading the run's files
            display.show(status)

    prepare(store)
    worker = Worker(store, stop, show, cadence=Cadence(store_bytes=load_settings().max_store_bytes))
    following = False
    if run.status.state == "failed":
        with suppress(Timeout), store.holding(run.name) as held:
            held.write_status(held.status.model_copy(update={"state": "queued", "reason": None}))
    with display.shown(), threadpool_limits(1):
        while True:
            store.get(run.name)
            status = run.standing
            show(status)
            if stop() or settled(status):
                return
            busy = store.leases.at_work_here()
            if not busy and worker.may_take(run):
                worker.train(run)
            elif busy and not following:
                console.print(
                    "A worker is running on this machine: it is training the run, or will when its turn "
                    "comes. Its progress is shown here; Ctrl-C ends only the display.",
                )
                following = True
            if not settled(run.standing):
                time.sleep(LOOK_SECONDS)


def settled(status: Status) -> bool:
    """Whether a run has ended, or is held until somebody resumes it."""
    return status.state in ENDED or status.held
