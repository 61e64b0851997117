"""Links in a store, which anybody who may write there can make: none is followed out of it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import stop, wait_until, worker_process

from app.runs import Run, RunStore
from model import history
from model.checkpoint import load
from model.errors import CheckpointError

SECRET = '{"step": 0, "kind": "sample", "text": "the secret", "loss": 1.0}\n'


def replace(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@pytest.fixture
def outside(trained: RunStore, tmp_path: Path) -> Path:
    """A folder beside the store, with a file and a whole run."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    shutil.copytree(trained.get("classic").path, folder / "run")
    return folder


@pytest.mark.parametrize(
    "name",
    ["step-000000060.safetensors", "history.jsonl", "samples.jsonl", "corpus.txt", "run.json", "latest.json"],
)
def test_a_server_reads_nothing_through_a_link(trained: RunStore, outside: Path, serving, name: str):
    run = trained.get("classic")
    source = outside / "run" / name if name.startswith(("step", "run", "latest")) else outside / "secret"
    replace(run.path / name, source)
    client = serving(trained.root)
    if name.startswith("step"):
        answer = client.post("/generate", json={"length": 5, "model": "classic"})
        assert answer.json()["model"] != "classic@60"  # the one before
    for path in ("/loss-curve", "/samples", "/models"):
        answer = client.get(path, params={"model": "classic"}, headers={"accept": "application/json"})
        assert "the secret" not in answer.text, path
        assert answer.status_code < 500 or answer.json()["error"]["code"] in (
            "store_unavailable",
            "run_unusable",
        )
    assert client.post("/generate", json={"length": 5}).json()["model"] == "gru@60"


def test_a_link_for_a_checkpoint_is_refused_with_the_reason(trained: RunStore, outside: Path):
    path = trained.get("classic").checkpoint_path(60)
    replace(path, outside / "run" / path.name)
    with pytest.raises(CheckpointError, match="is a link, a folder or a device"):
        load(path)


@pytest.mark.parametrize("write", [history.read, lambda path: history.append(path, [{"step": 1}])])
def test_a_link_for_a_curve_is_neither_read_nor_written(tmp_path: Path, write: Callable[[Path], object]):
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "history.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic link"):
        write(tmp_path / "history.jsonl")
    assert (tmp_path / "secret").read_text() == SECRET


def dangle(run: Run, outside: Path) -> None:
    for name in ("status.json", "latest.json", "history.jsonl", "samples.jsonl"):
        replace(run.path / name, outside / f"new-{name}")


def aim(run: Run, outside: Path) -> None:
    for name in ("status.json", "latest.json", "history.jsonl", "samples.jsonl", "baselines.json"):
        replace(run.path / name, outside / "secret")


@pytest.mark.parametrize("links", [dangle, aim])
def test_a_worker_writes_nothing_through_a_link(trained: RunStore, outside: Path, links):
    run = trained.get("gru")
    links(run, outside)
    before = {name: os.stat(outside / name).st_mtime_ns for name in os.listdir(outside)}
    with worker_process(trained) as worker:
        wait_until(lambda: run.status.state in ("finished", "failed"), "the worker is through with the run")
        code, log = stop(worker)
    assert (code, "Traceback" in log) == (0, False), log
    assert {name: os.stat(outside / name).st_mtime_ns for name in os.listdir(outside)} == before
    assert (outside / "secret").read_text() == SECRET
