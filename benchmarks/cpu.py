"""Processor time of a server by thread, from /proc (Linux only)."""

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def _fields(path):
    """The fields of a `stat` file after the name: state, parent, ...; None if the process has ended."""
    try:
        return (path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None


def family(process):
    """The process and all its descendants."""
    parents = {int(path.name): _fields(path) for path in Path("/proc").glob("[0-9]*")}
    found, looked_at = [process], 0
    while looked_at < len(found):
        parent, looked_at = str(found[looked_at]), looked_at + 1
        found += [child for child, fields in parents.items() if fields and fields[1] == parent]
    return found


def thread_seconds(process):
    """{(process, thread): seconds of processor time so far}, of a process and all its descendants."""
    seconds = {}
    for number in family(process):
        for path in Path(f"/proc/{number}/task").glob("*"):
            if fields := _fields(path):
                seconds[number, int(path.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    return seconds


def spent(before, after):
    """Seconds between two measurements: all threads, main threads, and each process's busiest other thread.

    In a Charloom server the main threads are event loops, and the busiest other threads are engines.
    """
    taken = {thread: seconds - before.get(thread, 0.0) for thread, seconds in after.items()}
    loops = sum(seconds for (process, thread), seconds in taken.items() if process == thread)
    busiest = {}
    for (process, thread), seconds in taken.items():
        if process != thread:
            busiest[process] = max(seconds, busiest.get(process, 0.0))
    return {"all": sum(taken.values()), "loop": loops, "engine": sum(busiest.values())}
