"""Names of unfinished files and folders: `.tmp-<place>-<pid>-<start>-<random>`.

Each names the process that writes it, so that what a killed process left is removed. `place` is a hash of the
machine, its boot and the PID namespace, because the same PID is another process elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from functools import cache
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"
ABANDONED_SECONDS = (
    3600.0  # after which what was begun elsewhere, or by an earlier version, is taken for left over
)
OWNED = re.compile(r"\.tmp-([0-9a-f]{8})-([0-9]{1,10})-([0-9]{1,20})-[0-9a-f]{16}", re.ASCII)


def temporary_in(folder: Path) -> Path:
    """A name in `folder` that nobody has, and that is cleared away once this process is gone."""
    pid = os.getpid()
    return folder / f"{TEMPORARY_PREFIX}{_place()}-{pid}-{_start(pid) or 0}-{secrets.token_hex(8)}"


def remove_temporaries(folder: Path) -> int:
    """Remove what processes that are gone left in `folder`, and say how many. Raises OSError."""
    stale = []
    for entry in folder.iterdir():
        if entry.name.startswith(TEMPORARY_PREFIX):
            with contextlib.suppress(FileNotFoundError):  # finished, or cleared by another
                if _is_left_over(entry, folder):
                    stale.append(entry)
    for entry in stale:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    return len(stale)


def _is_left_over(entry: Path, folder: Path) -> bool:
    if (owner := OWNED.fullmatch(entry.name)) and owner[1] == _place():
        return _start(int(owner[2])) != int(owner[3])
    return _last_change(entry) < _time_of(folder) - ABANDONED_SECONDS


def _time_of(folder: Path) -> float:
    """The time by the clock that stamps the files of a folder: a network's disk has one of its own."""
    probe = temporary_in(folder)
    try:
        probe.touch(0o600, exist_ok=False)
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _last_change(entry: Path) -> float:
    """Of a file, or of a folder and all that it holds. Raises FileNotFoundError."""
    newest = entry.lstat().st_mtime
    if entry.is_dir() and not entry.is_symlink():
        newest = max([newest, *map(_last_change, entry.iterdir())])
    return newest


@cache
def _place() -> str:
    """What tells this machine and PID namespace from others."""
    parts = [os.uname().nodename]
    with contextlib.suppress(OSError):  # not Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _start(pid: int) -> int | None:
    """When a process of this place began, in ticks; 0 where that is unknown, None if there is no process."""
    try:
        # the name of the program, in parentheses, may hold anything
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None if Path("/proc/self/stat").exists() or not is_running(pid) else 0


def is_running(pid: int) -> bool:
    """Whether this machine has such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
