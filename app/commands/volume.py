"""Tests whether the volume of a store has what workers on several machines need."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from app.store.files import make_folder
from app.store.temporaries import temporary_in

VISIBLE_SECONDS = 1.0
PROCESS_SECONDS = 10.0  # maximum time to wait for another process
NFS = "mount NFS with vers=4.1,actimeo=1,hard and without nolock"

# prints the content of a file for each line that it reads
WATCHER = """
import os, sys
for line in sys.stdin:
    try:
        with open(sys.argv[1], "rb") as file:
            found = file.read().decode()
    except FileNotFoundError:
        found = "nothing"
    print(found, flush=True)
"""


def faults(root: Path) -> list[str]:
    """The problems of the volume at `root`; removes its test files. Raises OSError."""
    folder = temporary_in(root)
    make_folder(folder)
    try:
        checks: tuple[Callable[[Path], str | None], ...] = (_create, _replace, _append, _lock, _see)
        return [fault for check in checks if (fault := check(folder))]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _create(folder: Path) -> str | None:
    path = folder / "exclusive"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    os.close(os.open(path, flags, 0o600))
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, flags, 0o600))
        return "two processes both created the same file exclusively"
    return None


def _replace(folder: Path) -> str | None:
    old, new = folder / "old", folder / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    with old.open("rb") as file:
        new.replace(old)
        if file.read() != b"old":
            return "an open file changed when another was renamed over it"
    if old.read_bytes() != b"new" or new.exists():
        return "a file cannot be renamed over another"
    (folder / "from").mkdir()
    (folder / "from" / "file").write_bytes(b"kept")
    (folder / "from").rename(folder / "to")
    with contextlib.suppress(FileNotFoundError):
        old.replace(folder / "from" / "late")
        return "a file was moved into a directory that was deleted"
    return None if (folder / "to" / "file").read_bytes() == b"kept" else "a directory cannot be renamed"


def _append(folder: Path) -> str | None:
    path = folder / "lines"
    for _ in range(2):
        with path.open("ab") as one, path.open("ab") as other:
            one.write(b"one\n")
            one.flush()
            other.write(b"two\n")
    return None if path.read_bytes() == b"one\ntwo\n" * 2 else "appends of two writers overwrite each other"


def _lock(folder: Path) -> str | None:
    path = folder / "lock"
    with FileLock(path):
        program = "import sys; from filelock import FileLock; FileLock(sys.argv[1]).acquire(timeout=0)"
        command = [sys.executable, "-P", "-c", program, str(path)]
        done = subprocess.run(command, stderr=subprocess.PIPE, timeout=PROCESS_SECONDS, check=False)  # noqa: S603
    if done.returncode == 0:
        return "a lock does not exclude another process"
    return None if Timeout.__name__.encode() in done.stderr else f"a lock fails: {done.stderr[-200:]!r}"


def _see(folder: Path) -> str | None:
    path = folder / "news"
    command = [sys.executable, "-P", "-c", WATCHER, str(path)]
    with subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as watcher:
        try:
            _ask(watcher)
            for number in range(2):
                new = folder / "new"
                new.write_text(f"news {number}")
                new.replace(path)
                end = time.monotonic() + VISIBLE_SECONDS
                while (seen := _ask(watcher)) != f"news {number}":
                    if time.monotonic() > end:
                        return f"another process still sees {seen!r} a second after a change"
                    time.sleep(0.05)
        finally:
            watcher.kill()
    return None


def _ask(watcher: subprocess.Popen[str]) -> str:
    if watcher.stdin is None or watcher.stdout is None:
        raise ValueError("the helper process was started without its pipes")
    watcher.stdin.write("\n")
    return watcher.stdout.readline().rstrip("\n")
