"""The memory and disk that a run needs: the estimate against real workers, and where it is enforced."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.cli import main
from app.intake.needs import needs_of
from app.store.capacity import NAME, Capacity, of_this_process
from app.store.run_store import RunStore
from app.training.worker import Worker
from model.config import PRESETS, RunConfig
from tests.support.runs import classic_like, gru_like, held_by_another, small_text

SMALL = {"preset": "gru", "hidden": 8, "embedding": 0, "streams": 4, "shards": 1, "steps": 4}
PEAK = """
import re, sys
from threadpoolctl import threadpool_limits
from app.store.run_store import RunStore
from app.training.trainer import train_run
with threadpool_limits(1):
    train_run(RunStore(sys.argv[1]).get("run"), lambda: False)
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]))
"""


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """A store whose worker has 200 MB of memory and one core."""
    store = RunStore(tmp_path / "checkpoints")
    store.make_root()
    Capacity(memory=200_000_000, cores=1).write(store.root / NAME)
    return store


def upload(api: httpx.Client, path: str = "/runs", **options: object) -> httpx.Response:
    headers = {"content-type": "text/plain"}
    return api.post(path, params=SMALL | options, content=small_text(20_000).encode(), headers=headers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "characters"),
    [
        ({"hidden": 12}, 5000),
        ({"hidden": 384, "layers": 2, "sequence_length": 16}, 8_000),
        ({"hidden": 64, "sequence_length": 128, "streams": 256}, 200_000),
        ({"hidden": 12}, 1_000_000),
    ],
    ids=["small", "weights", "activations", "text"],
)
def test_estimate_is_near_the_memory_that_a_worker_uses(tmp_path: Path, settings, characters):
    more = {
        "steps": 2,
        "streams": 32,
        "shards": 1,
        "validate_every": 1,
        "sample_every": 1,
        "sample_length": 9,
    }
    more |= {"best_sample_length": 9}
    config = PRESETS["gru"].replace(**more | settings)
    run = RunStore(tmp_path / "checkpoints").create("run", config, small_text(characters), "text.txt")
    command = [sys.executable, "-P", "-c", PEAK, str(run.path.parent)]
    peak = int(subprocess.check_output(command, cwd=tmp_path, timeout=300, stderr=subprocess.DEVNULL))
    needs = needs_of(config, characters, len(set(run.text())), of_this_process())
    assert 0.75 < needs.memory / peak < 1.35, needs


def test_helper_processes_are_limited_by_the_workers_cores():
    config = RunConfig(members=16, shards=64, streams=64)
    one, many = (
        needs_of(config, 1000, 50, Capacity(memory=1 << 30, cores=cores)).processes for cores in (1, 256)
    )
    assert one < 200e6
    assert many > 10e9


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"hidden": 4096}, "hidden"),
        ({"hidden": 300, "members": 16}, "hidden"),
        ({"streams": 64, "sequence_length": 256, "hidden": 256}, "streams"),
    ],
)
def test_upload_that_needs_too_much_memory_is_refused(store, serving, options, field):
    api = serving(store.root)
    for path in ("/runs", "/runs/check"):
        refused = upload(api, path, **options)
        assert refused.status_code == 422, refused.text
        error = refused.json()["error"]
        assert error["field"] == field
        assert "and the worker has 200 MB. Choose fewer units" in error["message"]
    assert store.list() == []
    assert upload(api).status_code == 202


def test_fork_and_job_that_need_too_much_memory_are_refused(store, serving):
    api = serving(store.root)
    Worker(store, lambda: False).train(store.create("run", gru_like(), small_text(), "text.txt"))
    Capacity(memory=1_000_000, cores=1).write(store.root / NAME)
    refused = api.post("/runs/run/fork")
    assert "and the worker has 1 MB" in refused.json()["error"]["message"]
    file = api.post("/v1/files", files={"file": ("a.txt", small_text())}, data={"purpose": "fine-tune"})
    job = {"model": "auto", "training_file": file.json()["id"]}
    refused = api.post("/v1/fine_tuning/jobs", json=job)
    assert refused.status_code == 400
    assert "and the worker has 1 MB" in refused.json()["error"]["message"]


def test_network_with_a_too_large_checkpoint_is_refused(store, serving):
    Capacity(memory=10**15, cores=1).write(store.root / NAME)
    refused = upload(serving(store.root), hidden=4096, layers=2, sample_every=0)
    assert refused.status_code == 422
    assert "at most 2.1 GB are read" in refused.json()["error"]["message"]


def test_run_whose_checkpoints_exceed_the_disk_is_refused(store, serving):
    api = serving(store.root, max_store_bytes=3_000_000)
    refused = upload(api, steps=1_000_000, sample_every=1, hidden=32)
    assert (refused.status_code, refused.json()["error"]["code"]) == (507, "store_full")
    assert "choose a larger sample_every or a smaller network" in refused.json()["error"]["message"]
    assert upload(api, steps=1_000_000, sample_every=0, hidden=32).status_code == 202


@pytest.mark.timeout(60)  # a run that is not refused would wait for the other worker
def test_command_line_refuses_a_run_without_enough_memory(store, tmp_path, monkeypatch, capsys):
    (tmp_path / "text.txt").write_text(small_text(), "utf-8")
    monkeypatch.setenv("CHARLOOM_STORE", str(store.root))
    command = ["train", str(tmp_path / "text.txt"), "--steps", "3", "--hidden"]
    with held_by_another(store, "other"):
        assert main([*command, "1024"]) == 2
    assert "and the worker has 200 MB" in capsys.readouterr().err
    monkeypatch.setattr("app.commands.train.of_this_process", lambda: Capacity(memory=100_000_000, cores=1))
    assert main([*command, "1024"]) == 2
    assert "and the worker has 100 MB" in capsys.readouterr().err
    assert store.list() == []


def test_queued_run_without_enough_memory_fails_and_the_next_runs(store, monkeypatch):
    monkeypatch.setattr(
        "app.training.recovery.of_this_process", lambda: Capacity(memory=150_000_000, cores=1)
    )
    # one short update: a worker that does not refuse the run ends soon
    config = PRESETS["gru"].replace(hidden=2048, steps=1, streams=4, shards=1, sequence_length=4)
    config = config.replace(sample_every=0, best_sample_length=0)
    large = store.create("large", config, small_text(), "text.txt")
    small = store.create("small", classic_like(), small_text(), "text.txt")
    worker = Worker(store, lambda: False)
    while (run := worker.next_run()) is not None:
        worker.train(run)
    assert large.status.state == "failed"
    assert "and the worker has 150 MB" in (large.status.reason or "")
    assert small.status.state == "finished"
