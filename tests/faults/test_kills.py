"""A worker killed with SIGKILL at 50 random moments continues bit-identically each time."""

import hashlib
import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

from app.signals import Stop
from app.store.run import Run
from app.store.run_store import RunStore
from app.store.temporaries import TEMPORARY_PREFIX
from app.training.trainer import Cadence, train_run
from app.training.worker import Worker
from model.checkpoint import load
from model.training import Training
from model.training import train as steps_of
from model.vocabulary import Vocabulary
from tests.support.runs import classic_like, outcome, small_text, wait_until

KILLS = 50
TEXT = small_text(2000)
# an update takes milliseconds, and every other one writes a checkpoint: many kills happen during a write
CONFIG = classic_like(steps=900, checkpoint_every=2, sample_every=0, best_sample_length=20)


def work(root: str) -> None:
    """Run a worker, in a child of a process that has already imported everything."""
    store = RunStore(root)
    Worker(store, Stop(), attempts=KILLS).run()


def reference() -> dict[int, str]:
    """The SHA-256 of the parameters after each update of an undisturbed training."""
    vocabulary = Vocabulary.from_text(TEXT)
    training = Training(
        CONFIG, vocabulary, vocabulary.encode(TEXT), hashlib.sha256(TEXT.encode()).hexdigest()
    )
    with threadpool_limits(1):
        return {progress.step: digest(training.network.flat.tobytes()) for progress in steps_of(training)}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def temporaries(run: Run) -> list[str]:
    """Unfinished files in the directory that a worker writes its changes to."""
    return [path.name for path in run.path.glob(f"{TEMPORARY_PREFIX}*/{TEMPORARY_PREFIX}*")]


@pytest.fixture
def forkserver(monkeypatch: pytest.MonkeyPatch) -> multiprocessing.context.ForkServerContext:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.test_kills"])
    return context


@pytest.mark.slow
def test_training_killed_at_50_random_moments_is_bit_identical(tmp_path: Path, forkserver):
    expected = reference()
    undisturbed = RunStore(tmp_path / "undisturbed").create("run", CONFIG, TEXT, "small.txt")
    with threadpool_limits(1):
        assert train_run(undisturbed, lambda: False, cadence=Cadence())
    run = RunStore(tmp_path / "killed").create("run", CONFIG, TEXT, "small.txt")
    rng = random.Random(7)
    killed_writes = 0
    for kill in range(KILLS):
        worker = forkserver.Process(target=work, args=(str(run.path.parent),), daemon=True)
        worker.start()
        wait_to_kill(run, rng, during_a_write=kill % 5 == 0)
        worker.kill()
        worker.join()
        killed_writes += bool(temporaries(run))
        latest = run.latest()
        if latest is not None:
            newest = load(run.path / latest.newest.file)
            assert digest(newest.parameters.tobytes()) == expected[newest.step], (kill, newest.step)
        assert run.status.state != "finished", f"the run was finished after {kill} kills"
    assert killed_writes, "no kill happened while a file was being written"
    with threadpool_limits(1):
        assert train_run(run, lambda: False)
    assert not temporaries(run)
    assert outcome(run) == outcome(undisturbed)


def wait_to_kill(run: Run, rng: random.Random, during_a_write: bool) -> None:
    """Wait for a moment to kill the worker: a random time, or, if wanted, while a file is half written."""
    begun = os.stat(run.path).st_mtime_ns
    wait_until(lambda: os.stat(run.path).st_mtime_ns != begun, "the worker writes")
    time.sleep(rng.uniform(0, 0.06))
    if during_a_write:
        wait_until(lambda: temporaries(run), "a file is being written")
