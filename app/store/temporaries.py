"""Temporary files and directories: `.tmp-<place>-<pid>-<start>-<random>`.

The name identifies the process that writes it, so that the files of killed processes can be removed. `place`
is a hash of the machine, its boot id and the PID namespace, because a PID is unique only within those.
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

from app.healthcheck import is_running

TEMPORARY_PREFIX = ".tmp-"
# without a change for this long, a file of another machine or an earlier version is considered abandoned
ABANDONED_SECONDS = 3600.0
OWNED = re.compile(r"\.tmp-([0-9a-f]{8})-([0-9]{1,10})-([0-9]{1,20})-[0-9a-f]{16}", re.ASCII)


def temporary_in(folder: Path) -> Path:
    """An unused path in `folder`, which `remove_temporaries` removes once this process has ended."""
    pid = os.getpid()
    return folder / f"{TEMPORARY_PREFIX}{_place()}-{pid}-{_start(pid) or 0}-{secrets.token_hex(8)}"


def remove_temporaries(folder: Path) -> int:
    """Removes what ended processes left in `folder`; returns how many. Raises OSError."""
    stale = []
    for entry in folder.iterdir():
        if entry.name.startswith(TEMPORARY_PREFIX):
            with contextlib.suppress(FileNotFoundError):  # renamed, or removed by another process
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
    """The current time of the clock that sets modification times in `folder`: a network disk has its own."""
    probe = temporary_in(folder)
    try:
        probe.touch(0o600, exist_ok=False)
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _last_change(entry: Path) -> float:
    """The newest modification time of a file, or of a directory and everything in it."""
    newest = entry.lstat().st_mtime
    if entry.is_dir() and not entry.is_symlink():
        newest = max([newest, *map(_last_change, entry.iterdir())])
    return newest


@cache
def _place() -> str:
    """Identifies this machine, its boot and the PID namespace."""
    parts = [os.uname().nodename]
    with contextlib.suppress(OSError):  # not Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _start(pid: int) -> int | None:
    """The start time of a local process, in clock ticks; 0 if unknown, None if there is no such process."""
    try:
        # the name of the program, in parentheses, may contain spaces and parentheses
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None if Path("/proc/self/stat").exists() or not is_running(pid) else 0
