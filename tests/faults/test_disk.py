"""A disk that is really full or read-only: a small file system in memory, and real processes."""

import logging
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.store.run import Run
from app.store.run_store import RunStore
from app.store.space import Budget, size_of
from app.training.trainer import train_run
from app.training.worker import Worker
from model.checkpoint import load
from model.config import RunConfig
from tests.support.disks import fill, mounted, remount
from tests.support.runs import (
    LONGEST_WAIT,
    classic_like,
    gru_like,
    outcome,
    patient_worker,
    small_text,
    stop,
    wait_until,
    worker_process,
)
from tests.support.servers import server_process
from tests.support.stores import announce

PLAIN = {"content-type": "text/plain"}
CONFIG = classic_like(steps=30_000, hidden=30, sample_every=0, checkpoint_every=500, record_every=50)


def undisturbed(folder: Path, config: RunConfig = CONFIG) -> Run:
    run = RunStore(folder).create("run", config, small_text(), "small.txt")
    assert train_run(run, lambda: False)
    return run


@pytest.mark.slow
def test_run_paused_by_a_full_disk_ends_like_an_undisturbed_one(tmp_path: Path):
    expected = outcome(undisturbed(tmp_path / "undisturbed"))
    with mounted(tmp_path / "small") as disk:
        store = RunStore(disk / "checkpoints")
        run = store.create("run", CONFIG, small_text(), "small.txt")
        with server_process(store.root, poll_seconds=0.05) as client, patient_worker(store) as worker:
            for _ in range(3):  # at any write: of a checkpoint, the curve or a status
                before = run.latest()
                wait_until(lambda before=before: run.latest() != before, "the worker continues")
                assert run.status.state != "finished"
                filler = fill(disk)
                assert worker.stderr is not None
                line = next(line for line in worker.stderr if "paused" in line)
                assert "run run paused: No space left on device: free some space" in line
                wait_until(lambda: client.get("/readyz").status_code == 200, "a checkpoint is served")
                assert client.post("/generate", json={"length": 20}).status_code == 200
                filler.unlink()
            wait_until(lambda: run.status.state == "finished", "the run is finished")
            code, log = stop(worker)
        assert code == 0, log
        assert "Traceback" not in log
        assert outcome(run) == expected


@pytest.mark.slow
def test_lease_that_does_not_fit_on_the_disk_pauses_the_run(tmp_path: Path):
    config = gru_like(steps=10, sample_every=0)
    expected = outcome(undisturbed(tmp_path / "undisturbed", config))
    with mounted(tmp_path / "small") as disk:
        store = RunStore(disk / "checkpoints")
        run = store.create("run", config, small_text(), "small.txt")
        worker = Worker(store, lambda: False, retry_seconds=0.0)
        store.leases.prepare()
        worker._reserve.keep()  # as a worker does before it takes a run
        filler = fill(disk)
        with pytest.raises(OSError, match="No space left"):
            store.leases.acquire("run")
        worker.train(run)
        assert run.status.state == "paused"
        assert "No space left on device" in (run.status.reason or "")
        assert run.latest() is None
        filler.unlink()
        worker.train(run)
        assert outcome(run) == expected
        assert store.leases.held() == set()


@pytest.mark.slow
@pytest.mark.parametrize("leave", [0, 4096, 16384, 65536])
def test_checkpoint_stays_intact_if_the_next_one_does_not_fit(tmp_path: Path, leave: int, caplog):
    config = gru_like(steps=40, hidden=60, sample_every=0, checkpoint_every=5)
    expected = outcome(undisturbed(tmp_path / "undisturbed", config))
    with mounted(tmp_path / "small") as disk:
        store = RunStore(disk / "checkpoints")
        run = store.create("run", config, small_text(), "small.txt")
        ticks = iter(range(100))
        train_run(run, lambda: next(ticks) == 12)
        before = run.latest()
        filler = fill(disk, leave)
        worker = Worker(store, lambda: False, retry_seconds=0.0)
        with caplog.at_level(logging.ERROR):
            worker.train(run)
        assert "free some space" in caplog.text
        assert before is not None
        assert run.latest() == before
        assert load(run.path / before.newest.file).digest == before.newest.digest
        assert not [path for path in run.path.iterdir() if path.name.startswith(".tmp-")]
        filler.unlink()
        worker.train(run)
        assert outcome(run) == expected


@pytest.mark.slow
def test_store_uses_four_fifths_of_its_volume_by_default(tmp_path: Path):
    config = gru_like(steps=100, hidden=24, embedding=0, checkpoint_every=5, sample_every=5)
    with mounted(tmp_path / "small", 2 << 20) as disk:
        store = RunStore(disk / "checkpoints")
        run = store.create("run", config, small_text(), "small.txt")
        filler = fill(disk, leave=1 << 20)  # space used by others must not make the store remove anything
        Worker(store, lambda: False).train(run)
        assert run.status.state == "paused"
        assert 0 in run.checkpoints()
        filler.unlink()
        Worker(store, lambda: False).train(run)
        assert run.status.state == "finished"
        assert 0 not in run.checkpoints()
        assert size_of(store.root) <= 0.85 * (2 << 20)  # curve and samples are not reserved in advance
        assert Budget(store, 0).limit == 0


@pytest.mark.slow
def test_read_only_store_is_served_and_not_trained(tmp_path: Path, trained_root: Path):
    with mounted(tmp_path / "small") as disk:
        subprocess.run(["cp", "-r", str(trained_root), str(disk / "checkpoints")], check=True)
        store = RunStore(disk / "checkpoints")
        remount(disk, "ro")
        with server_process(store.root) as client:
            assert client.post("/generate", json={"length": 20}).json()["model"] == "gru@60"
            assert client.get("/loss-curve.png").status_code == 200
            with worker_process(store) as worker:
                _, log = worker.communicate(timeout=LONGEST_WAIT)
            assert worker.returncode == 2
            assert "Read-only file system" in log
            assert "Traceback" not in log
            remount(disk, "rw")
            announce(store.get("gru"), 70, b"")
            wait_until(lambda: client.get("/readyz").json()["model"] == "gru@70", "the new one is served")


@pytest.mark.slow
def test_full_disk_refuses_uploads_and_still_serves_texts(tmp_path: Path):
    text = small_text(6000)
    small = {"preset": "gru", "hidden": 8, "embedding": 0, "streams": 4, "shards": 1, "sample_every": 0}
    with mounted(tmp_path / "small") as disk:
        store = RunStore(disk / "checkpoints")
        store.root.mkdir()
        with server_process(store.root, poll_seconds=0.05) as client, patient_worker(store) as worker:

            def upload(name: str, content: str, **options: int) -> httpx.Response:
                given = small | options | {"name": name}
                return client.post("/runs", params=given, content=content.encode(), headers=PLAIN)

            def now(name: str) -> dict[str, Any]:
                return dict(client.get(f"/runs/{name}").json())

            assert upload("long", text, steps=1_000_000, checkpoint_every=100).status_code == 202
            wait_until(lambda: now("long")["newest"], "the run has a checkpoint")
            wait_until(lambda: fill(disk) and now("long")["state"] == "paused", "the training is paused")
            for _ in range(20):  # others use up what is freed, while the worker retries
                fill(disk)
                assert now("long")["state"] == "paused"
                assert "No space left on device" in now("long")["reason"]
                time.sleep(0.05)
            fill(disk)  # including what the worker released to report it
            for answer in (
                upload("more", text),
                client.post("/runs/long/fork", params={"name": "more"}),
                client.post("/v1/files", files={"file": ("a.txt", text)}, data={"purpose": "fine-tune"}),
            ):
                assert (answer.status_code, answer.json()["error"]["code"]) == (507, "store_full")
            assert client.get("/runs/more").status_code == 404
            assert not [path for path in store.root.iterdir() if path.name.startswith(".tmp-")]
            assert client.post("/generate", json={"prompt": "the", "length": 20}).status_code == 200
            (disk / "filler").unlink()
            assert upload("more", text, steps=40).status_code == 202
            step = now("long")["step"]
            wait_until(lambda: now("long")["step"] > step, "the training continues")
            assert client.patch("/runs/long", json={"action": "stop"}).status_code == 200
            wait_until(lambda: now("more")["state"] == "finished", "the next run is trained")
            code, log = stop(worker)
        assert code == 0, log
        assert "Traceback" not in log
