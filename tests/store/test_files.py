import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.store.files import is_regular, read_regular, replacing, write_atomic


@given(first=st.binary(max_size=2000), second=st.binary(max_size=2000))
def test_file_has_the_last_written_bytes(tmp_path_factory, first, second):
    path = tmp_path_factory.mktemp("files") / "file"
    write_atomic(path, first)
    write_atomic(path, second)
    assert path.read_bytes() == second
    assert os.listdir(path.parent) == ["file"]


def test_failed_write_leaves_the_old_bytes_and_no_temporary(tmp_path: Path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_write_syncs_the_content_renames_and_syncs_the_folder(tmp_path: Path, monkeypatch):
    events = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        events.append("folder" if Path(f"/proc/self/fd/{descriptor}").resolve() == tmp_path else "content")
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_atomic(tmp_path / "file", b"data")
    assert events == ["content", "rename", "folder"]


def test_reader_never_sees_a_partly_written_file(tmp_path: Path):
    path = tmp_path / "file"
    write_atomic(path, b"old" * 1000)
    with replacing(path) as temporary:
        temporary.write_bytes(b"ne")
        assert path.read_bytes() == b"old" * 1000
    assert path.read_bytes() == b"ne"


def test_only_regular_files_within_the_limit_are_read(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes; the limit here is 4"):
        read_regular(path, 4)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic link"):
        read_regular(link, 5)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(pipe, 5)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none", 5)
    assert [is_regular(p) for p in (path, link, pipe, tmp_path / "none")] == [True, False, False, False]
