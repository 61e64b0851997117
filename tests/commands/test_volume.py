"""`charloom doctor` reports a volume that lacks what several machines need."""

import os
from pathlib import Path

from app.commands import volume
from app.commands.doctor import examine
from app.settings import Settings


def test_local_disk_has_no_faults_and_leaves_no_files(tmp_path: Path):
    assert volume.faults(tmp_path) == []
    assert os.listdir(tmp_path) == []


def test_doctor_names_the_mount_options_for_nfs(tmp_path: Path, monkeypatch):
    found = {finding.name: finding for finding in examine(Settings(store=tmp_path, port=0))}["volume"]
    assert found.state == "ok"
    assert "vers=4.1,actimeo=1" in found.message
    monkeypatch.setattr("app.commands.doctor.volume_faults", lambda root: ["nothing is kept"])
    found = {finding.name: finding for finding in examine(Settings(store=tmp_path, port=0))}["volume"]
    assert (found.state, found.message) == ("fault", "nothing is kept")
    assert "actimeo=1" in found.advice


def test_non_exclusive_creation_is_a_fault(tmp_path: Path, monkeypatch):
    honest = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, mode=0o777: honest(path, flags & ~os.O_EXCL, mode))
    assert volume.faults(tmp_path) == ["two processes both created the same file exclusively"]


def test_non_atomic_rename_is_a_fault(tmp_path: Path, monkeypatch):
    def copy(source: Path, target: Path) -> Path:  # simulates a rename that is a copy, visible to readers
        target.write_bytes(source.read_bytes())
        source.unlink()
        return target

    monkeypatch.setattr(Path, "replace", copy)
    assert "an open file changed when another was renamed over it" in volume.faults(tmp_path)


def test_lost_appends_are_a_fault(tmp_path: Path, monkeypatch):
    honest = Path.open

    def at_the_start(path: Path, mode: str = "r", *rest: object, **more: object) -> object:
        kind = mode.replace("ab", "r+b" if path.exists() else "wb")
        return honest(path, kind, *rest, **more)

    monkeypatch.setattr(Path, "open", at_the_start)
    assert volume.faults(tmp_path) == ["appends of two writers overwrite each other"]


def test_lock_without_mutual_exclusion_is_a_fault(tmp_path: Path, monkeypatch):
    class Nothing:
        def __init__(self, path: Path) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(volume, "FileLock", Nothing)
    assert volume.faults(tmp_path) == ["a lock does not exclude another process"]


def test_changes_that_become_visible_late_are_a_fault(tmp_path: Path, monkeypatch):
    late = volume.WATCHER.replace(
        "for line", "import functools, io; old = functools.cache(lambda p: open(p).read())\nfor line"
    )
    late = late.replace('with open(sys.argv[1], "rb") as file:', "if True:").replace(
        "file.read().decode()", "old(sys.argv[1])"
    )
    monkeypatch.setattr(volume, "WATCHER", late)
    assert volume.faults(tmp_path) == ["another process still sees 'news 0' a second after a change"]
