import errno
import json
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.intake.default_runs import queue_defaults
from app.settings import Settings
from app.signals import Stop, stop_on_signals
from app.store.capacity import kernel
from app.store.claims import LeaseLostError
from app.store.files import write_atomic
from app.store.records import Control, Status
from app.store.run import Run
from app.store.run_store import RunStore
from app.training.trainer import RunWriter
from app.training.worker import Worker
from model.checkpoint import load
from model.config import PRESETS, RunConfig
from model.training import Training
from tests.support.runs import (
    LONGEST_WAIT,
    at_work,
    classic_like,
    gru_like,
    outcome,
    small_text,
    stop,
    wait_until,
    worker_process,
)

NO_PROCESS = (1 << 22) + 1  # more than the number of any process


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "checkpoints")


def add(store: RunStore, name: str, config: RunConfig | None = None, text: str | None = None) -> Run:
    text = small_text() if text is None else text
    return store.create(name, config or classic_like(steps=20), text, "small.txt")


def work(store: RunStore, retry_seconds: float = 10.0) -> list[str]:
    """Let a worker train everything that is due; return the names of the runs in order."""
    worker = Worker(store, lambda: False, retry_seconds=retry_seconds)
    taken = []
    for _ in range(20):
        run = worker.next_run()
        if run is None:
            return taken
        taken.append(run.name)
        worker.train(run)
    raise AssertionError(f"the worker does not finish: {taken}")


def test_runs_are_trained_in_order_and_finished(store: RunStore):
    runs = [add(store, name) for name in ("b", "a")]
    assert work(store) == ["b", "a"]
    for run in runs:
        status = run.status
        assert (status.state, status.step, status.steps, status.fraction) == ("finished", 20, 20, 1.0)
        assert status.reason is None
        assert status.expected_end is None
        assert status.heartbeat > run.spec.created


def test_finished_run_has_its_files_and_final_status(store: RunStore):
    run = add(store, "run", gru_like(steps=40, sample_every=10, checkpoint_every=1, validate_every=5))
    work(store)
    points = run.history()
    assert [point["step"] for point in points] == sorted({*range(0, 41, 2), *range(0, 41, 5)})
    assert points[0]["loss"] is None
    assert run.status.kernel == kernel() != "unknown"
    assert points[0]["validation_loss"] > 0
    assert points[-1]["characters"] == 40 * 12 * 4
    samples = run.samples()
    assert [(s["step"], s["kind"]) for s in samples] == [(s, "sample") for s in range(0, 41, 10)] + [
        (40, "best")
    ]
    assert [len(s["text"]) for s in samples] == [15] * 5 + [30]
    assert list(run.checkpoints()) == [0, 10, 20, 30, 38, 39, 40]
    latest = run.latest()
    assert latest is not None
    assert latest.best is not None
    assert latest.newest.step == 40
    assert latest.best.loss == min(point["validation_loss"] for point in points if point["validation_loss"])
    assert [p.name for p in run.path.glob("best-*")] == [latest.best.file]
    for entry in (latest.newest, latest.best):
        checkpoint = load(run.path / entry.file)
        assert (checkpoint.step, checkpoint.digest) == (entry.step, entry.digest)


def test_samples_at_every_step_become_rarer(store: RunStore, monkeypatch):
    monkeypatch.setattr("app.training.trainer.MAX_SAMPLED_CHECKPOINTS", 4)
    monkeypatch.setattr("model.config.RunConfig.sample_spacing.__defaults__", (8,))
    settings = {"sample_every": 1, "checkpoint_every": 1000, "best_sample_length": 0, "validate_every": 1000}
    run = add(store, "run", gru_like(steps=40, **settings))
    written = []
    save = RunWriter.save

    def save_and_note(writer: RunWriter) -> None:
        written.append(writer.training.step)
        save(writer)
        writer._save_due = math.inf  # independent of the clock

    monkeypatch.setattr(RunWriter, "save", save_and_note)
    work(store)
    expected = [*range(9), *range(10, 17, 2), *range(20, 33, 4), 40]
    assert [sample["step"] for sample in run.samples()] == expected
    # steps 0 to 4, then every second, fourth, ... step; the last three are kept as the newest
    assert written == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40]
    assert list(run.checkpoints()) == [0, 16, 24, 32, 40]


def test_untrained_checkpoint_is_saved_before_the_first_update(store: RunStore, monkeypatch):
    run = add(store, "run")

    def no_update(self: object) -> None:
        assert run.latest() is not None
        assert list(run.checkpoints()) == [0]
        raise KeyboardInterrupt

    monkeypatch.setattr("model.training.Training.update", no_update)
    with pytest.raises(KeyboardInterrupt):
        work(store)


def test_same_text_and_seed_give_the_same_run(store: RunStore):
    first, second = add(store, "first"), add(store, "second")
    work(store)
    assert outcome(first) == outcome(second)


def test_started_run_is_trained_before_queued_ones(store: RunStore):
    add(store, "first")
    for name, status in [
        ("killed", Status(state="training")),
        ("stopped", Status(state="queued", step=5)),
        ("user-paused", Status(state="paused", step=5)),
        ("disk-full", Status(state="paused", step=5, retry_at=1.0)),
        ("failed", Status(state="failed", step=5)),
    ]:
        add(store, name).write_status(status)
    assert work(store) == ["killed", "stopped", "disk-full", "first"]


@pytest.mark.parametrize(
    ("config", "text", "reason"),
    [
        (classic_like(), "too short", "must have at least"),
        (
            gru_like(learning_rate=10.0, weight_decay=10.0, clip="none", steps=500),
            None,
            "smaller learning rate",
        ),
    ],
)
def test_failed_run_has_its_reason_and_the_next_is_trained(
    store: RunStore, config: RunConfig, text: str, reason: str
):
    bad, good = add(store, "bad", config, text), add(store, "good")
    assert work(store) == ["bad", "good"]
    assert bad.status.state == "failed"
    assert reason in (bad.status.reason or "")
    assert good.status.state == "finished"


def test_network_with_non_finite_weights_is_not_written(store: RunStore, monkeypatch):
    run = add(store, "run")

    def overflow(training: Training) -> None:
        training.step += 1
        training.network.flat[0] = float("inf")

    monkeypatch.setattr(Training, "update", overflow)
    assert work(store) == ["run"]
    assert run.status.state == "failed"
    assert list(run.checkpoints()) == [0]


def test_program_error_fails_the_run_and_is_logged(store: RunStore, monkeypatch, caplog):
    bad = add(store, "bad")
    monkeypatch.setattr("app.training.trainer.train", lambda training: 1 / 0)
    assert work(store) == ["bad"]
    assert bad.status.reason == "unexpected ZeroDivisionError: division by zero"
    assert "Traceback" in caplog.text


class FullDisk:
    """A disk without space for checkpoints until some is freed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, bytes], None]) -> None:
        self.full, self.write = True, write
        monkeypatch.setattr(Run, "write", lambda run, path, data: self.write_atomic(path, data))

    def write_atomic(self, path: Path, data: bytes) -> None:
        if self.full and path.suffix == ".safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        self.write(path, data)


def test_full_disk_pauses_the_run_until_there_is_space(store: RunStore, monkeypatch):
    run, expected = add(store, "run"), add(store, "expected")
    disk = FullDisk(monkeypatch, write_atomic)
    worker = Worker(store, lambda: False, retry_seconds=0.05)
    worker.train(run)
    status = run.status
    assert (status.state, status.retry_at is not None) == ("paused", True)
    assert "No space left on device" in (status.reason or "")
    disk.full = False
    time.sleep(0.05)
    assert work(store) == ["run", "expected"]
    assert run.status.reason is None
    assert outcome(run) == outcome(expected)


def test_run_with_an_unwritable_state_does_not_block_the_queue(store: RunStore, monkeypatch, caplog):
    run, other = add(store, "run"), add(store, "other")
    write = Run.write_status

    def read_only(written: Run, status: Status) -> None:
        if written.name == run.name:
            raise OSError(errno.EROFS, "Read-only file system")
        write(written, status)

    monkeypatch.setattr(Run, "write_status", read_only)
    assert work(store) == ["run", "other"]
    assert other.status.state == "finished"
    assert "its state could not be written" in caplog.text


@pytest.mark.parametrize("wanted", [None, "stop"])
def test_status_too_large_to_be_written_again_costs_only_its_run(store: RunStore, caplog, wanted):
    """It is within the limit as it is, and over it with each of its warnings on a line of its own."""
    run, other = add(store, "run"), add(store, "other")
    large = {"state": "training", "warnings": [""] * 250_000}
    (run.path / "status.json").write_text(json.dumps(large, separators=(",", ":")))
    run.write_control(Control(wanted=wanted))
    assert run.status.state == "training"
    assert work(store) == (["other"] if wanted else ["run", "other"])
    assert other.status.state == "finished"
    assert "its state could not be written: status.json would have" in caplog.text


@pytest.mark.slow
def test_waiting_worker_picks_up_a_new_run(store: RunStore):
    store.root.mkdir()
    with worker_process(store) as worker:
        wait_until(lambda: at_work(store), "the worker looks for runs")
        run = add(store, "run")
        wait_until(lambda: run.status.state == "finished", "the run is finished")
        code, log = stop(worker)
    assert code == 0, log


@pytest.mark.slow
def test_run_that_kills_three_workers_fails_and_the_next_runs(store: RunStore):
    # an update takes longer than the test needs to notice that one has started
    slow = gru_like(hidden=1024, sequence_length=64, streams=64, validate_every=1000)
    fatal, other = add(store, "fatal", slow, small_text(20_000)), add(store, "other")
    for deaths in range(3):
        with worker_process(store) as worker:
            wait_until(
                lambda deaths=deaths: (fatal.status.state, fatal.status.deaths) == ("training", deaths),
                f"the run is tried after {deaths} deaths",
            )
            worker.kill()
            worker.wait(LONGEST_WAIT)
    with worker_process(store):
        wait_until(lambda: other.status.state == "finished", "the queue goes on")
    assert fatal.status.state == "failed"
    assert "the worker died 3 times in a row at step 0" in (fatal.status.reason or "")


def test_death_count_restarts_after_progress_and_a_resume(store: RunStore):
    run = add(store, "run")
    work(store)
    dead = {"state": "training", "deaths": 2, "host": socket.gethostname(), "process": NO_PROCESS}
    run.write_status(Status.model_validate(dead | {"died_at": 7}))  # before its newest checkpoint
    assert work(store) == ["run"]
    assert run.status.state == "finished"
    assert run.status.deaths == 1
    run.write_status(Status.model_validate(dead | {"died_at": 20}))
    assert work(store) == ["run"]
    assert run.status.state == "failed"
    run.write_status(run.status.model_copy(update={"state": "queued"}))
    assert work(store) == ["run"]
    assert (run.status.state, run.status.deaths) == ("finished", 0)


def test_death_counts_once_a_worker_of_its_host_finds_it(store: RunStore, monkeypatch):
    run = add(store, "run")
    work(store)
    here, alive = socket.gethostname(), os.getppid()
    lost = [("a", NO_PROCESS), (here, alive), ("c", NO_PROCESS)]
    left = Status(state="training", deaths=2, died_at=20, host="b", process=NO_PROCESS, lost=lost)
    run.write_status(left)
    assert work(store) == ["run"]
    assert (run.status.state, run.status.deaths) == ("finished", 2)
    assert run.status.lost == [*lost, ("b", NO_PROCESS)]
    run.write_status(left)
    monkeypatch.setattr(socket, "gethostname", lambda: "b")
    assert work(store) == ["run"]
    assert run.status.state == "failed"
    assert "the worker died 3 times in a row at step 20" in (run.status.reason or "")


def test_worker_that_gets_its_own_lost_run_back_counts_no_death(store: RunStore, monkeypatch):
    run = add(store, "run")
    worker = Worker(store, lambda: False)

    def lose(run: Run, *others: object) -> bool:
        raise LeaseLostError("another process has taken over")

    monkeypatch.setattr("app.training.worker.train_run", lose)
    for _ in range(4):
        worker.train(run)
        assert (run.status.state, run.status.deaths, run.status.lost) == ("training", 0, [])
    Worker(store, lambda: False).train(run)  # as in a restarted container, where it has the same number
    assert run.status.deaths == 1


def test_signals_request_a_stop_and_handlers_are_restored():
    stop_request = Stop()
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals(stop_request):
        assert not stop_request()
        signal.raise_signal(signal.SIGTERM)
        assert stop_request()
    assert signal.getsignal(signal.SIGTERM) is before


def test_stop_that_takes_too_long_is_aborted(monkeypatch, caplog):
    monkeypatch.setattr("app.signals.LONGEST_GOODBYE", 0.05)
    with stop_on_signals(Stop()):
        signal.raise_signal(signal.SIGINT)
        for _ in range(1000):
            time.sleep(0.01)
        pytest.fail("was not cut short")
    assert "exiting without another checkpoint" in caplog.text


def test_end_of_the_parent_process_requests_a_stop():
    assert not Stop(parent=os.getppid())()
    assert Stop(parent=os.getppid() + 1)()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "play.txt"
    path.write_text(small_text(), "utf-8")
    return path


def test_new_store_gets_the_default_runs_once(store: RunStore, corpus: Path):
    settings = Settings(store=store.root, corpus=corpus)
    # each thread has its own store object, like the server and the worker
    threads = [
        threading.Thread(target=queue_defaults, args=(RunStore(store.root), settings)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs = store.list()
    assert [(run.name, run.config) for run in runs] == [
        ("classic", PRESETS["classic"]),
        ("gru-pair-muon", PRESETS["gru-pair-muon"]),
    ]
    assert runs[0].text() == small_text()


def test_store_with_runs_gets_no_defaults_and_reports_the_text(store: RunStore, corpus: Path, caplog):
    add(store, "mine")
    queue_defaults(store, Settings(store=store.root, corpus=corpus))
    assert [run.name for run in store.list()] == ["mine"]
    assert "play.txt is ignored" in caplog.text


def test_slow_store_takes_at_most_a_tenth_of_training_time(store, monkeypatch):
    worker, run = Worker(store, lambda: False), add(store, "small")
    worker._serving = True
    now = start = time.monotonic()
    looks = 0

    def look(run: Run) -> bool:
        nonlocal now, looks
        now, looks = now + 3, looks + 1
        return False

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(worker, "_outranked", look)
    interrupted = worker._interruption(run)
    while now < start + 300:
        assert not interrupted()
        now += 0.25
    assert 5 <= looks <= 300 * 0.1 / 3 + 1
