"""`charloom doctor`: checks what the service needs, and says what to do about each problem.

It changes nothing: it creates no run, and removes the files with which it tests the volume.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Literal

import numpy as np
from packaging.requirements import Requirement
from threadpoolctl import threadpool_info, threadpool_limits

from app.commands.terminal import say
from app.commands.volume import NFS
from app.commands.volume import faults as volume_faults
from app.engine.models import ModelStore
from app.healthcheck import server_fault, worker_fault
from app.intake.findings import counted
from app.server.process import AddressError, listen
from app.settings import PREFIX, Settings, unknown_variables
from app.store.capacity import kernel, whole_cores
from app.store.run_store import RunStore
from model.config import RunConfig
from model.errors import CharloomError
from model.generation import generate
from model.gradcheck import check, make_problem
from model.vocabulary import Vocabulary

LEAST_PYTHON = (3, 11)
LITTLE_SPACE, NO_SPACE = 1 << 30, 50 << 20  # bytes below which there is a warning, or a fault
TEXT = "the quick brown fox jumps over the lazy dog\n"

MARKS = {"ok": "ok  ", "warning": "WARN", "fault": "FAIL"}

State = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check; `advice` says what to do about a problem."""

    name: str
    state: State
    message: str
    advice: str = ""


def examine(settings: Settings) -> Iterator[Diagnosis]:
    """Run all checks in order; an unexpected error in one is a fault too."""
    checks: tuple[Callable[[Settings], Diagnosis], ...] = (
        versions,
        variables,
        blas,
        store,
        volume,
        checkpoints,
        worker,
        disk,
        port,
        gradients,
        generation,
    )
    for one in checks:
        try:
            yield one(settings)
        except (CharloomError, OSError, ArithmeticError, ValueError) as error:
            yield Diagnosis(
                one.__name__, "fault", f"{type(error).__name__}: {error}", "see docs/operations.md"
            )


def versions(settings: Settings) -> Diagnosis:
    """The versions of Python and of every required package."""
    wrong = []
    if sys.version_info < LEAST_PYTHON:
        wrong.append(f"Python {platform.python_version()}, needs {'.'.join(map(str, LEAST_PYTHON))}")
    for text in requires("charloom") or ():
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(needed.name)
        except PackageNotFoundError:
            found = "nothing"
        if found == "nothing" or not needed.specifier.contains(found, prereleases=True):
            wrong.append(f"{needed.name} {found}, needs {needed.specifier}")
    if wrong:
        return Diagnosis(
            "versions", "fault", "; ".join(wrong), "install again: pip install --upgrade charloom"
        )
    told = f"Charloom {version('charloom')}, Python {platform.python_version()}, NumPy {np.__version__}"
    return Diagnosis("versions", "ok", told)


def variables(settings: Settings) -> Diagnosis:
    """Environment variables that look like settings but are not."""
    if unknown := unknown_variables(os.environ):
        return Diagnosis("variables", "warning", unknown[0], "rename it, or remove it")
    return Diagnosis("variables", "ok", f"every {PREFIX}… variable is a setting")


def blas(settings: Settings) -> Diagnosis:
    """Whether BLAS can be limited to one thread, as server and worker do."""
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    if not found:
        return Diagnosis(
            "blas",
            "warning",
            "the thread count of NumPy's BLAS cannot be set",
            "set its thread count to 1 with its own environment variable, or install the NumPy wheel from "
            "PyPI",
        )
    with threadpool_limits(1, "blas"):
        threads = max(
            library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
        )
    name = f"{found[0]['internal_api']} {found[0]['version']}"
    if threads != 1:
        return Diagnosis(
            "blas", "fault", f"{name} keeps using {threads} threads", "set OPENBLAS_NUM_THREADS=1"
        )
    cores = counted(whole_cores(), "core")
    return Diagnosis("blas", "ok", f"{name} ({kernel()}), one thread for computing, {cores}")


def store(settings: Settings) -> Diagnosis:
    """Whether the directory of the runs exists and is writable."""
    root = settings.store.resolve()
    if not root.exists():
        advice = "start `charloom serve`, which creates one with the default runs"
        return Diagnosis("store", "warning", f"there is no directory {root}", advice)
    if not root.is_dir():
        return Diagnosis("store", "fault", f"{root} is not a directory", "choose another with CHARLOOM_STORE")
    if not os.access(root, os.R_OK | os.X_OK):
        return Diagnosis("store", "fault", f"{root} cannot be read", "give this user permission to read it")
    if not os.access(root, os.W_OK) or os.statvfs(root).f_flag & os.ST_RDONLY:
        advice = "enough for a server; a worker needs permission to write"
        return Diagnosis("store", "warning", f"{root} is read-only", advice)
    runs = RunStore(root)
    info = runs.leases.info()
    how = f"leases of {info.lease_seconds:g} s" if info else "no leases yet: the first worker creates them"
    return Diagnosis("store", "ok", f"{root}, {counted(len(runs.list()), 'run')}, {how}")


def volume(settings: Settings) -> Diagnosis:
    """Whether the volume has what workers on several machines need, tested in a temporary directory."""
    root = settings.store.resolve()
    if not root.is_dir() or not os.access(root, os.W_OK) or os.statvfs(root).f_flag & os.ST_RDONLY:
        return Diagnosis("volume", "ok", "not tested: nothing can be written there")
    if faults := volume_faults(root):
        return Diagnosis("volume", "fault", "; ".join(faults), f"use another volume, or {NFS}")
    return Diagnosis("volume", "ok", f"renames, appends, locks and shows changes; for several machines {NFS}")


def checkpoints(settings: Settings) -> Diagnosis:
    """Whether there is a checkpoint to serve, and whether the newest one of every run is intact."""
    models = ModelStore(RunStore(settings.store))
    models.refresh()
    bad = [run for run in models.runs.list() if run.status.state == "failed"]
    if not models.ready:
        return Diagnosis("checkpoints", "warning", "there is none yet", "start a worker: `charloom worker`")
    if refusal := models.last_refusal:
        return Diagnosis(
            "checkpoints",
            "fault",
            f"{refusal.file} of run {refusal.run!r} {refusal.reason}; {models.current.id} is served",
            "restore an intact copy, or start a worker, which continues from the previous checkpoint",
        )
    if bad:
        advice = "see docs/operations.md for what to do when a run has failed"
        return Diagnosis(
            "checkpoints", "warning", f"run {bad[0].name!r} failed: {bad[0].status.reason}", advice
        )
    return Diagnosis("checkpoints", "ok", f"{models.current.id} would be served")


def worker(settings: Settings) -> Diagnosis:
    """Whether a worker is alive and training, if there is a run to train."""
    runs = RunStore(settings.store)
    if silent := worker_fault(runs.root):
        return Diagnosis(
            "worker",
            "fault",
            silent,
            "stop that worker and start it again; the run continues exactly where it was",
        )
    found = [(run.name, run.standing) for run in runs.list()]
    trained = [
        f"{name} is trained by process {status.process} on {status.host}"
        for name, status in found
        if status.state == "training" and not runs.leases.abandoned(name)
    ]
    if trained:
        return Diagnosis("worker", "ok", "; ".join(trained))
    if waiting := [name for name, status in found if status.state in ("queued", "training")]:
        advice = "start one: `charloom worker`"
        return Diagnosis("worker", "warning", f"none is training; waiting: {', '.join(waiting)}", advice)
    return Diagnosis("worker", "ok", "none is training, and there is nothing to train")


def disk(settings: Settings) -> Diagnosis:
    """Free space on the volume of the store."""
    folder = settings.store.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    told = f"{free / (1 << 20):,.0f} MB free at {folder}"
    if free < LITTLE_SPACE:
        state: State = "fault" if free < NO_SPACE else "warning"
        return Diagnosis(
            "disk", state, told, "free some space or delete old runs: a full disk pauses training"
        )
    return Diagnosis("disk", "ok", told)


def port(settings: Settings) -> Diagnosis:
    """Whether the server can listen, or is already running."""
    where = f"{settings.host} port {settings.port}"
    try:
        for listener in listen(settings.host, settings.port):
            listener.close()
    except AddressError as error:
        host = settings.host.strip("[]")
        if server_fault(f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/healthz") is None:
            return Diagnosis("port", "ok", f"a server answers at {where}")
        advice = "stop the program that listens there, or choose another port with --port or CHARLOOM_PORT"
        return Diagnosis("port", "fault", str(error).partition(";")[0], advice)
    return Diagnosis("port", "ok", f"{where} is free")


def gradients(settings: Settings) -> Diagnosis:
    """The gradients of a small network, checked by complex steps."""
    vocabulary = Vocabulary.from_text(TEXT)
    config = RunConfig(cell="gru", hidden=5, layers=2, sequence_length=6)
    with threadpool_limits(1):
        problem = make_problem(config, vocabulary, vocabulary.encode(TEXT[:7]))
        results = list(check(problem, "complex-step", elements=20))
    wrong = [result.name for result in results if not result.passed]
    if wrong:
        advice = "this NumPy or its BLAS computes wrong results here: install another version"
        return Diagnosis("gradients", "fault", f"wrong in {', '.join(wrong)}", advice)
    return Diagnosis("gradients", "ok", f"correct for all {len(results)} parameters of a small GRU")


def generation(settings: Settings) -> Diagnosis:
    """Whether the same seed gives the same text."""
    models = ModelStore(RunStore(settings.store))
    models.refresh()
    if not models.ready:
        return Diagnosis("generation", "ok", "no checkpoint to generate with yet")
    model = models.current
    with threadpool_limits(1):
        first, second = (generate(model.network, model.vocabulary, "", 40, seed=1).text for _ in range(2))
    if first != second:
        advice = (
            "this BLAS is not deterministic: set OPENBLAS_NUM_THREADS=1, or install the NumPy wheel from PyPI"
        )
        return Diagnosis("generation", "fault", f"{model.id} gave two texts for one seed", advice)
    return Diagnosis("generation", "ok", f"{model.id} writes {first[:30]!r}")


def doctor(settings: Settings) -> bool:
    """Print each result as soon as it is known; return whether there was no fault."""
    healthy = True
    for finding in examine(settings):
        say(f"{MARKS[finding.state]} {finding.name}: {finding.message}")
        if finding.advice:
            say(f"     -> {finding.advice}")
        healthy &= finding.state != "fault"
    return healthy
