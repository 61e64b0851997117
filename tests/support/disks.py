"""Small file systems in memory, which tests fill or make read-only."""

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
    """A separate file system at `folder`. Skips the test where mounting is not permitted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "charloom-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_WAIT)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system here (only root can): {done.stderr.strip()}")
    try:
        yield folder
    finally:
        wait_until(lambda: unmounted(folder), "no process uses the file system any more")


def unmounted(folder: Path) -> bool:
    done = subprocess.run(["umount", str(folder)], capture_output=True, text=True, timeout=LONGEST_WAIT)
    assert done.returncode == 0 or "busy" in done.stderr, done.stderr
    return done.returncode == 0


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True, timeout=LONGEST_WAIT)


def fill(folder: Path, leave: int = 0) -> Path:
    """Use up all free space except `leave` bytes, including what was freed since the last call."""
    path = folder / "filler"
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 14))
    with path.open("r+b") as file:
        file.truncate(max(0, path.stat().st_size - leave))
    return path
