"""Small file systems in memory, to be filled or made read-only."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.runs import LONGEST_WAIT, wait_until

SIZE = 8 << 20


@contextlib.contextmanager
def mounted(folder: Path, size: int = SIZE) -> Iterator[Path]:
    """A file system of its own. Skips the test, by name, where none may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "charloom-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_WAIT)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system here (it takes root): {done.stderr.strip()}")
    try:
        yield folder
    finally:
        wait_until(lambda: unmounted(folder), "no helper of a server that has ended holds the file system")


def unmounted(folder: Path) -> bool:
    done = subprocess.run(["umount", str(folder)], capture_output=True, text=True, timeout=LONGEST_WAIT)
    assert done.returncode == 0 or "busy" in done.stderr, done.stderr
    return done.returncode == 0


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True, timeout=LONGEST_WAIT)


def fill(folder: Path, leave: int = 0) -> Path:
    """Takes the free space but for `leave` bytes, also what was freed since the last time."""
    path = folder / "filler"
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 14))
    with path.open("r+b") as file:
        file.truncate(max(0, path.stat().st_size - leave))
    return path
