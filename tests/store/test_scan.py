"""File operations per second on a store of 500 runs; a network file system handles a few thousand."""

import builtins
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.engine.models import ModelStore
from app.store.control import ask
from app.store.groups import add_members
from app.store.leases import FOLDER
from app.store.records import Status
from app.store.run import Text
from app.store.run_store import RunStore
from app.store.scan import BUSY_RATE, IDLE_RATE
from app.training.trainer import train_run
from app.training.worker import Worker
from tests.support.runs import classic_like, held_by_another, small_text
from tests.support.stores import announce

RUNS = 500
GROUPS = 15  # of eight members each
COUNTED = ("stat", "lstat", "scandir", "listdir", "open", "utime", "access", "readlink", "mkdir", "rename")
POLLS_A_SECOND = 2  # of a worker
LEASE_RATE = 3  # operations a second on the lease of each run that another worker trains
TOLERANCE = 1.2  # times the average rate: the counted time may contain one more reading of all runs


class Clock:
    """A monotonic clock that a test advances, with a count of the file operations."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, self.operations, self.lease_operations = time.monotonic(), 0, 0
        patch.setattr(time, "monotonic", lambda: self.now)
        for module, names in ((os, COUNTED), (builtins, ("open",))):
            for name in names:
                patch.setattr(module, name, self.counting(getattr(module, name)))

    def counting(self, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **options: object) -> object:
            self.operations += 1
            self.lease_operations += FOLDER in str(arguments[0])
            return call(*arguments, **options)

        return counted

    def rate(self, poll: Callable[[], object], polls_a_second: float, seconds: int) -> float:
        """File operations per second while `poll` is called at the given rate."""
        before = self.operations
        for _ in range(int(seconds * polls_a_second)):
            poll()
            self.now += 1 / polls_a_second
        return (self.operations - before) / seconds


def corpus(folder: Path) -> None:
    (folder / "corpus.txt").write_text("a" * 100)


@pytest.fixture(scope="module")
def five_hundred(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    store = RunStore(tmp_path_factory.mktemp("many"))
    config = classic_like(steps=2, sample_every=0)
    assert train_run(store.create("run-000", config, small_text(), "small.txt"), lambda: False)
    first = store.root / "run-000"
    record = json.loads((first / "run.json").read_bytes())
    for number in range(1, RUNS):
        folder = store.root / f"run-{number:03}"
        shutil.copytree(first, folder, copy_function=os.link)
        (folder / "run.json").unlink()
        text = json.dumps(record | {"name": folder.name, "position": number + 1})
        (folder / "run.json").write_text(text)
    return store


@pytest.fixture
def store(five_hundred: RunStore) -> RunStore:
    return RunStore(five_hundred.root)


@pytest.mark.slow
def test_idle_worker_makes_at_most_100_file_operations_a_second(store: RunStore, monkeypatch):
    worker = Worker(store, lambda: False)
    assert worker.next_run() is None
    clock = Clock(monkeypatch)
    clock.rate(worker.next_run, POLLS_A_SECOND, 3)  # the store is new to the worker
    assert 0 < clock.rate(worker.next_run, POLLS_A_SECOND, 60) <= TOLERANCE * IDLE_RATE + POLLS_A_SECOND


@pytest.mark.slow
def test_waiting_groups_add_no_file_operations(tmp_path, monkeypatch):
    store, config = RunStore(tmp_path / "groups"), classic_like(members=8)
    for number in range(GROUPS):
        text = Text("a.txt", "0" * 64, 100)
        add_members(store, store.add(f"g{number}", config, text, corpus, apart=True))
    worker = Worker(store, lambda: False)
    assert worker.next_run().name == "g0.1"
    clock = Clock(monkeypatch)
    clock.rate(worker.next_run, POLLS_A_SECOND, 3)
    assert 0 < clock.rate(worker.next_run, POLLS_A_SECOND, 60) <= TOLERANCE * IDLE_RATE + POLLS_A_SECOND


@pytest.mark.slow
def test_held_run_adds_few_file_operations_to_an_idle_worker(store: RunStore, monkeypatch):
    worker = Worker(store, lambda: False)
    run = store.get("run-007")
    before = run.status
    with held_by_another(store, "run-007"):
        run.write_status(Status(state="training", step=1))
        clock = Clock(monkeypatch)

        def try_next() -> None:
            if found := worker.next_run():
                worker.train(found)

        try:
            clock.rate(try_next, POLLS_A_SECOND, 4)  # the directory of the leases is new
            before_tries = clock.lease_operations
            # less than the 30 seconds of a lease, whose holder never renews it by this clock
            assert 0 < clock.rate(try_next, POLLS_A_SECOND, 25) <= 1.6 * IDLE_RATE + 10
            assert 0 < (clock.lease_operations - before_tries) / 25 <= LEASE_RATE
        finally:
            run.write_status(before)


@pytest.mark.slow
def test_constantly_changing_store_is_read_at_a_limited_rate(store: RunStore, monkeypatch):
    worker = Worker(store, lambda: False)
    clock = Clock(monkeypatch)

    def poll_a_changing_store() -> None:
        store.announce()
        worker.next_run()

    assert clock.rate(poll_a_changing_store, POLLS_A_SECOND, 30) <= TOLERANCE * BUSY_RATE


@pytest.mark.slow
def test_idle_server_makes_at_most_100_file_operations_a_second(store: RunStore, monkeypatch):
    models = ModelStore(store)
    models.look()
    assert models.ready
    clock = Clock(monkeypatch)
    clock.rate(models.look, 4, 3)
    assert 0 < clock.rate(models.look, 4, 60) <= TOLERANCE * IDLE_RATE + 4


@pytest.mark.slow
def test_request_for_one_of_500_runs_is_found_in_two_seconds(store: RunStore, monkeypatch):
    worker, models = Worker(store, lambda: False), ModelStore(store)
    assert worker.next_run() is None
    models.look()
    clock = Clock(monkeypatch)
    clock.rate(worker.next_run, POLLS_A_SECOND, 3)
    run = store.get("run-123")
    before = run.status
    run.write_status(before.model_copy(update={"state": "stopped"}))
    ask(store, run, "train", None)
    found = [worker.next_run()]
    clock.rate(lambda: found.append(worker.next_run()), POLLS_A_SECOND, 2)
    assert "run-123" in [run.name for run in found if run]
    (run.path / "control.json").unlink()
    run.write_status(before)


@pytest.mark.slow
def test_next_checkpoint_of_an_active_run_is_found_by_one_poll(store: RunStore, monkeypatch):
    models, run = ModelStore(store), store.get("run-321")
    models.look()
    announce(run, 10, b"", time=3e9)
    store.announce()
    clock = Clock(monkeypatch)
    clock.rate(models.look, 4, 3)
    assert models.current.id == "run-321@10"
    announce(run, 20, b"", time=3e9 + 1)
    models.look()
    assert models.current.id == "run-321@20"
