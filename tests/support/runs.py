"""Runs that are small enough to train within a test, and real worker processes that train them."""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from app.store.run import Run
from app.store.run_store import RunStore
from model.checkpoint import load
from model.config import PRESETS, RunConfig

LONGEST_WAIT = 60.0  # seconds; bounds every wait for another process


def small_text(length: int = 4000) -> str:
    """A text that can be learned: short words, the same on every call."""
    rng = random.Random(1)
    words = ("the", "cat", "sat", "on", "a", "mat\n", "naïve", "dog", "ran")
    return " ".join(rng.choice(words) for _ in range(length))[:length]


def classic_like(**changes: Any) -> RunConfig:
    """The classic preset, smaller: one stream, AdaGrad, best by smooth loss."""
    settings = {"hidden": 12, "sequence_length": 10, "steps": 60, "record_every": 1, "checkpoint_every": 7}
    settings |= {"sample_every": 20, "sample_length": 15, "best_sample_length": 30}
    return PRESETS["classic"].replace(**settings | changes)


def gru_like(**changes: Any) -> RunConfig:
    """The gru preset, smaller: streams, AdamW with a schedule, best by held-out loss."""
    settings = {"hidden": 12, "layers": 2, "sequence_length": 12, "streams": 4, "shards": 1, "steps": 60}
    settings |= {"record_every": 2, "validate_every": 10, "checkpoint_every": 7, "sample_every": 20}
    return PRESETS["gru"].replace(**settings | {"sample_length": 15, "best_sample_length": 30} | changes)


def outcome(run: Run) -> dict[str, Any]:
    """Everything that a run leaves behind, except wall-clock times."""
    latest = run.latest()
    assert latest is not None
    assert latest.best is not None
    newest, best = load(run.path / latest.newest.file), load(run.path / latest.best.file)
    assert (newest.digest, best.digest) == (latest.newest.digest, latest.best.digest)
    return {
        "state": run.status.state,
        "history": [{k: v for k, v in point.items() if k != "seconds"} for point in run.history()],
        "samples": run.samples(),
        "newest": (newest.step, newest.parameters.tobytes()),
        "resume": {name: np.asarray(tensor).tobytes() for name, tensor in newest.tensors.items()},
        "best": (best.step, latest.best.loss, best.parameters.tobytes()),
        # which unsampled steps are kept depends on when the run was stopped,
        # and the directory of its worker's claim may exist for a moment after the last status
        "files": sorted(
            entry.name
            for entry in os.scandir(run.path)
            if not entry.name.startswith("step-") and not entry.is_dir()
        ),
    }


@contextlib.contextmanager
def worker_process(store: RunStore) -> Iterator[subprocess.Popen[str]]:
    """A real worker process on `store`; killed at the end of the block if it still runs."""
    environment = os.environ | {"CHARLOOM_STORE": str(store.root), "CHARLOOM_CORPUS": "none.txt"}
    command = [sys.executable, "-P", "-m", "app.worker"]
    process = subprocess.Popen(
        command, env=environment, cwd=store.root.parent, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=LONGEST_WAIT)


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str]:
    """Send the worker a signal; return its exit code and log."""
    process.send_signal(number)
    _, log = process.communicate(timeout=LONGEST_WAIT)
    return process.returncode, log


def wait_until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + LONGEST_WAIT
    for _ in itertools.count():
        if condition():
            return
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.005)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


HOLD = """
import sys
from app.store.run_store import RunStore
lease = RunStore(sys.argv[1]).leases.acquire(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another(store: RunStore, name: str) -> Iterator[None]:
    """Another process of this machine that holds a run; killed at the end of the block, not releasing it."""
    command = [sys.executable, "-c", HOLD, str(store.root), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield
        finally:
            process.kill()


def at_work(store: RunStore) -> bool:
    """Whether a worker has started to look for runs."""
    return store.leases.info() is not None


@contextlib.contextmanager
def patient_worker(
    store: RunStore, retry_seconds: float = 0.1, setup: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """A worker process that retries soon after a full disk; `setup` is Python code that it runs first."""
    program = f"""
{setup}
import logging, sys
from app.store.run_store import RunStore
from app.worker import Stop, Worker, stop_on_signals
logging.basicConfig(level="INFO")
store, stop = RunStore(sys.argv[1]), Stop()
with stop_on_signals(stop):
    Worker(store, stop, retry_seconds={retry_seconds}).run()
"""
    command = [sys.executable, "-P", "-c", program, str(store.root)]
    with subprocess.Popen(command, cwd=store.root.parent, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=LONGEST_WAIT)
