"""Links in a store, which anyone with write access can create, are never followed out of the store."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.store import history
from app.store.run import Run
from app.store.run_store import RunStore
from model.checkpoint import load
from model.errors import CheckpointError
from tests.support.runs import stop, wait_until, worker_process

SECRET_LOSS = "0.987654321"
SECRET = f'{{"step": 0, "kind": "sample", "text": "the secret", "loss": {SECRET_LOSS}}}\n'


def replace(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@pytest.fixture
def outside(trained: RunStore, tmp_path: Path) -> Path:
    """A directory next to the store, with a file and a complete run."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    shutil.copytree(trained.get("classic").path, folder / "run")
    return folder


@pytest.mark.parametrize(
    "name",
    ["step-000000060.safetensors", "history.jsonl", "samples.jsonl", "corpus.txt", "run.json", "latest.json"],
)
def test_server_reads_nothing_through_a_link(trained: RunStore, outside: Path, serving, name: str):
    run = trained.get("classic")
    source = outside / "run" / name if name.startswith(("step", "run", "latest")) else outside / "secret"
    replace(run.path / name, source)
    client = serving(trained.root)
    if name.startswith("step"):
        answer = client.post("/generate", json={"length": 5, "model": "classic"})
        assert answer.json()["model"] != "classic@60"  # the previous one
    for path in ("/loss-curve", "/samples", "/runs"):
        answer = client.get(path, params={"model": "classic"}, headers={"accept": "application/json"})
        assert "the secret" not in answer.text, path
        assert SECRET_LOSS not in answer.text, path
        assert answer.status_code < 500 or answer.json()["error"]["code"] in (
            "store_unavailable",
            "run_unusable",
        )
    assert client.post("/generate", json={"length": 5}).json()["model"] == "gru@60"


def test_link_in_place_of_a_checkpoint_is_refused(trained: RunStore, outside: Path):
    path = trained.get("classic").checkpoint_path(60)
    replace(path, outside / "run" / path.name)
    with pytest.raises(CheckpointError, match="is a link, a directory or a device"):
        load(path)


@pytest.mark.parametrize("write", [history.POINTS.read, lambda path: history.append(path, [{"step": 1}])])
def test_link_in_place_of_a_curve_is_not_read_or_written(tmp_path: Path, write: Callable[[Path], object]):
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


@pytest.mark.slow
@pytest.mark.parametrize("links", [dangle, aim])
def test_worker_writes_nothing_through_a_link(trained: RunStore, outside: Path, links):
    run = trained.get("gru")
    links(run, outside)
    before = {name: os.stat(outside / name).st_mtime_ns for name in os.listdir(outside)}
    with worker_process(trained) as worker:
        wait_until(lambda: run.status.state in ("finished", "failed"), "the worker has finished with the run")
        code, log = stop(worker)
    assert (code, "Traceback" in log) == (0, False), log
    assert {name: os.stat(outside / name).st_mtime_ns for name in os.listdir(outside)} == before
    assert (outside / "secret").read_text() == SECRET


@pytest.mark.parametrize(
    "name", ["corpus.txt", "history.jsonl", "samples.jsonl", "step-000000060.safetensors"]
)
def test_export_and_fork_read_nothing_through_a_link(trained: RunStore, outside: Path, serving, name: str):
    run = trained.get("classic")
    replace(run.path / name, outside / "run" / name if name.startswith("step") else outside / "secret")
    client = serving(trained.root)
    exported = client.get("/runs/classic/export", params={"text": True})
    assert exported.status_code == 503, "a part of the run is missing without an error"
    assert "the secret" not in exported.text
    forked = client.post("/runs/classic/fork", params={"name": "forked"})
    if name.endswith("jsonl"):  # a fork does not use these
        assert forked.status_code == 202
    else:
        assert forked.status_code == 503
        assert "forked" not in os.listdir(trained.root)


def test_deleting_a_run_removes_links_but_not_their_targets(trained: RunStore, outside: Path, serving):
    run = trained.get("classic")
    (run.path / "folder").symlink_to(outside)
    replace(run.path / "history.jsonl", outside / "secret")
    assert serving(trained.root).delete("/runs/classic").status_code == 200
    assert (outside / "secret").read_text() == SECRET
    assert (outside / "run" / "run.json").exists()
    assert not run.path.exists()


def test_run_that_is_a_link_cannot_be_changed_or_replaced(trained: RunStore, outside: Path, serving):
    (trained.root / "linked").symlink_to(outside / "run")
    (trained.root / "dangling").symlink_to(outside / "new")
    exported = serving(trained.root).get("/runs/classic/export").content
    client = serving(trained.root)
    for name in ("linked", "dangling"):
        for method, path, given in (
            ("GET", "", {}),
            ("GET", "/events", {}),
            ("GET", "/export", {}),
            ("POST", "/fork", {}),
            ("PATCH", "", {"json": {"action": "stop"}}),
            ("DELETE", "", {"params": {"force": True}}),
        ):
            answer = client.request(method, f"/runs/{name}{path}", **given)
            assert answer.status_code == 404, (method, path, answer.text)
        zipped = {"content": exported, "headers": {"content-type": "application/zip"}}
        assert client.post("/runs/import", params={"name": name}, **zipped).status_code == 409
        text = {"content": b"a cat sat on a mat. " * 200, "headers": {"content-type": "text/plain"}}
        assert client.post("/runs", params={"name": name, "preset": "classic"}, **text).status_code == 409
    assert sorted(os.listdir(outside)) == ["run", "secret"]


@pytest.mark.parametrize("name", [".queue.lock", ".leases/classic.lease", ".leases"])
def test_lock_that_is_a_link_is_not_followed(trained: RunStore, outside: Path, serving, name: str):
    if "/" in name:
        (trained.root / name).parent.mkdir(exist_ok=True)
    replace(trained.root / name, outside if name == ".leases" else outside / "secret")
    client = serving(trained.root)
    assert client.patch("/runs/classic", json={"priority": 1}).status_code in (200, 503)
    assert client.delete("/runs/classic").status_code in (200, 503)
    assert sorted(os.listdir(outside)) == ["run", "secret"]
    assert (outside / "secret").read_text() == SECRET
