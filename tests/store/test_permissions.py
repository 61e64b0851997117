"""Permissions of a store: for its owner only, or for a group if the store's directory belongs to one."""

import io
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.intake.archive import export, import_run
from app.intake.new_runs import fork, new_run
from app.store.control import ask
from app.store.files import Source
from app.store.run_store import RunStore
from app.store.space import Budget, Limits
from app.store.uploads import UploadedFiles
from app.training.trainer import train_run
from app.training.worker import Worker
from tests.support.runs import small_text

SETTINGS = {"preset": "classic", "hidden": 4, "steps": 3, "sample_every": 0, "best_sample_length": 10}


@pytest.fixture(params=[0o022, 0o077, 0o000], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def used(root: Path) -> RunStore:
    """A store after every operation that writes files."""
    store = RunStore(root)
    limits = Limits(1 << 20, 10, Budget(store, 0))
    run = new_run(store, SETTINGS | {"name": "run"}, [text()], limits).run
    ask(store, run, "train", 1)
    Worker(store, lambda: run.status.state == "finished").run()
    archive = root.parent / "run.zip"
    export(run, None, True, archive)
    with archive.open("rb") as content:
        import_run(store, {"name": "again"}, content, limits)
    train_run(fork(store, "run", {"name": "fork"}, [], limits).run, lambda: False)
    UploadedFiles(store, limits).add(text(), "fine-tune")
    assert store.clear_leftovers() == 0
    return store


def text() -> Source:
    return Source("small.txt", io.BytesIO(small_text().encode()))


def modes(root: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {"file": set(), "folder": set()}
    for path in (root, *root.rglob("*")):
        kind = "folder" if path.is_dir() else "file"
        found[kind].add(oct(stat.S_IMODE(path.stat().st_mode)))
    return found


def test_store_is_private_under_any_umask(tmp_path: Path, umask: None):
    assert modes(used(tmp_path / "store").root) == {"file": {"0o600"}, "folder": {"0o700"}}


def test_store_in_a_group_folder_is_shared_with_the_group(tmp_path: Path, umask: None):
    root = tmp_path / "store"
    root.mkdir()
    root.chmod(0o2770)
    assert modes(used(root).root) == {"file": {"0o660"}, "folder": {"0o2770"}}


AS_USER = """
import encodings.utf_32_le, os, sys  # the user may not be able to read the standard library
from app.store.control import ask
from app.store.run_store import RunStore
from app.training.worker import Worker
from tests.support.runs import classic_like, small_text

user, root = int(sys.argv[1]), sys.argv[2]
os.umask(0o022)
os.setgroups([12345])
os.setgid(user)
os.setuid(user)
store = RunStore(root)
"""
CREATE = 'store.create("run", classic_like(steps=3), small_text(), "small.txt")'
TRAIN = """
run = store.get("run")
ask(store, run, "train", user - 12000)
Worker(store, lambda: run.status.state == "finished").run()
"""
SHOW = 'print(store.get("run").status.state, store.get("run").control.priority)'


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory that every user may enter; `tmp_path` is accessible to root only."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="switches to two other users, which only root can")
def test_two_users_of_a_group_share_a_store(open_folder: Path):
    root = open_folder / "store"
    root.mkdir()
    os.chown(root, 12001, 12345)
    root.chmod(0o2770)

    def run_as(user: int, code: str) -> list[str]:
        command = [sys.executable, "-c", AS_USER + code, str(user), str(root)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    run_as(12001, CREATE)
    run_as(12002, TRAIN)
    assert run_as(12001, SHOW) == ["finished", "2"]
    run_as(12001, 'ask(store, store.get("run"), None, 7)')
    assert run_as(12002, SHOW) == ["finished", "7"]
