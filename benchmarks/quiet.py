"""The share of the machine that other processes used during a measurement, from /proc (Linux only)."""

import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
TOLERATED = 0.05  # of the time of all cores
TRIES = 4


def _fields(path):
    """The fields of /proc/PID/stat after the command's name: state, parent, ..."""
    return Path(path, "stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def _own_ticks():
    """Processor time of this process and its children, user and system."""
    own, total = str(os.getpid()), 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = _fields(path)
        except OSError:  # it has ended
            continue
        if path.name == own or fields[1] == own:
            total += int(fields[11]) + int(fields[12])
    return total


def _busy_ticks():
    """Processor time of all processes on all cores."""
    user, nice, system, _, _, *interrupts = Path("/proc/stat").read_text(encoding="utf-8").split()[1:9]
    return sum(map(int, (user, nice, system, *interrupts)))


def quietest(measure):
    """(result of `measure()`, share of the cores that other processes used) of the first undisturbed try, or
    of the least disturbed one."""
    best = None
    for _ in range(TRIES):
        start, busy, own = time.perf_counter(), _busy_ticks(), _own_ticks()
        result = measure()
        elapsed = time.perf_counter() - start
        taken = (_busy_ticks() - busy) - (_own_ticks() - own)
        share = max(0.0, taken / (elapsed * TICKS * len(os.sched_getaffinity(0))))
        if best is None or share < best[1]:
            best = result, share
        if share <= TOLERATED:
            break
    return best
