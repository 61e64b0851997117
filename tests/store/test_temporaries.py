"""Unfinished files are removed once their process has ended, and never while it runs."""

import os
import subprocess
import sys
import time
from pathlib import Path

from app.store import temporaries
from app.store.control import begin_deletion, finish_deletion
from app.store.files import replacing, write_atomic
from app.store.run_store import RunStore
from app.store.space import Budget, size_of
from app.store.temporaries import ABANDONED_SECONDS, TEMPORARY_PREFIX, remove_temporaries, temporary_in
from app.training.trainer import train_run
from app.training.worker import Worker
from tests.support.runs import classic_like, held_by_another, small_text, wait_until

LEAVE = """
import os, signal, sys
from pathlib import Path
from app.store.files import make_folder
from app.store.temporaries import temporary_in
folder = temporary_in(Path(sys.argv[1]))
make_folder(folder)
(folder / "content").write_text("half")
temporary_in(Path(sys.argv[1])).write_text("half")
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_writer(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", LEAVE, folder], check=False, timeout=60)


def test_only_leftovers_of_a_killed_process_are_removed(tmp_path: Path):
    write_atomic(tmp_path / "file", b"data")
    (tmp_path / ".worker.lock").touch()
    killed_writer(tmp_path)
    assert len(os.listdir(tmp_path)) == 4
    with replacing(tmp_path / "other") as ours:
        ours.write_bytes(b"half")
        assert remove_temporaries(tmp_path) == 2
        assert ours.exists()
    assert sorted(os.listdir(tmp_path)) == [".worker.lock", "file", "other"]


def test_reused_process_id_does_not_keep_leftover_files(tmp_path: Path):
    path = temporary_in(tmp_path)
    prefix, place, pid, start, random = path.name.rsplit("-", 4)
    path.with_name(f"{prefix}-{place}-{pid}-{int(start) - 1}-{random}").touch()
    assert remove_temporaries(tmp_path) == 1


def test_temporaries_of_another_host_are_removed_once_old(tmp_path: Path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(temporaries, "_place", lambda: "0123abcd")
        foreign = temporary_in(tmp_path)
    (tmp_path / ".tmp-0123456789abcdef").touch()  # a name of earlier versions
    foreign.mkdir()
    (foreign / "content").touch()
    old = time.time() - ABANDONED_SECONDS - 10
    os.utime(foreign, (old, old))
    assert remove_temporaries(tmp_path) == 0  # its content is recent
    for path in (foreign / "content", tmp_path / ".tmp-0123456789abcdef", foreign):
        os.utime(path, (old, old))
    assert remove_temporaries(tmp_path) == 2
    assert os.listdir(tmp_path) == []


def test_request_being_written_survives_the_start_of_its_run(tmp_path: Path):
    store = RunStore(tmp_path)
    run = store.create("run", classic_like(steps=3), small_text(), "small.txt")
    with replacing(run.path / "control.json") as request:
        request.write_bytes(b'{"wanted": "pause", "asked": 1.0}')
        train_run(run, lambda: False)
    assert run.control.wanted == "pause"


def test_leftovers_are_removed_from_the_whole_store(tmp_path: Path):
    store = RunStore(tmp_path / "store")
    run = store.create("run", classic_like(), small_text(), "small.txt")
    (store.root / ".files").mkdir()
    for folder in (store.root, store.root / ".files", run.path):
        killed_writer(folder)
    with held_by_another(store, "gone"):
        pass
    assert store.leases.holder("gone") is not None
    # holding the run removes one: a directory in it may be the claim of an earlier holder
    with store.holding("run"):
        assert store.clear_leftovers() == 6
        assert os.listdir(store.root / ".leases") == ["run.lease"]
    assert sorted(os.listdir(store.root)) == [
        *(".files", ".leases", ".queue.lock", ".store.json", ".worker.lock", "run")
    ]
    assert sorted(os.listdir(run.path)) == ["corpus.txt", "run.json"]


def test_leftovers_do_not_count_against_the_budget(tmp_path: Path):
    store = RunStore(tmp_path / "store")
    store.create("run", classic_like(), small_text(), "small.txt")
    used = size_of(store.root)
    killed_writer(store.root)
    (next(path for path in store.root.glob(".tmp-*") if path.is_dir()) / "content").write_bytes(b"x" * 50_000)
    Budget(store, used + 10_000).make_room(5_000)
    assert size_of(store.root) == used


def test_deleted_run_leaves_no_lease(tmp_path: Path):
    store = RunStore(tmp_path)
    store.create("run", classic_like(), small_text(), "small.txt")
    begin_deletion(store, "run", force=True)
    assert finish_deletion(store, "run", deadline=0.0)
    assert os.listdir(store.root / ".leases") == []


def test_running_server_and_worker_remove_leftovers(trained: RunStore, serving, monkeypatch):
    monkeypatch.setattr("app.main.CLEARING_SECONDS", 0.05)
    monkeypatch.setattr("app.training.worker.CLEARING_SECONDS", 0.0)

    def left() -> list[str]:
        return [name for name in os.listdir(trained.root) if name.startswith(TEMPORARY_PREFIX)]

    stops = iter((False, True))
    killed_writer(trained.root)
    assert len(left()) == 2
    Worker(trained, lambda: next(stops), poll_seconds=0.0).run()
    assert left() == []
    serving(trained.root)
    killed_writer(trained.root)
    wait_until(lambda: left() == [], "the server removes what a killed process left")
