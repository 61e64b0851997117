"""The memory and cores that a process may use, and the BLAS kernel that it computes with.

Limits of a container are read from Linux control groups, version 1 or 2. Server and worker may be in
different containers, so a worker publishes its limits in the store: a run has to fit into those.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field
from threadpoolctl import threadpool_info

from app.errors import RunFileError
from app.store.records import MAX_COUNT, Count, Record
from app.store.run_store import RunStore

NAME = ".worker.json"  # in the store's directory
PROCESSES_PER_CORE = 4  # more than one, so that the cores are busy until the end of most batches


class Capacity(Record):
    """The memory, in bytes, and the cores that the processes of a container or machine share."""

    memory: Count
    cores: Annotated[int, Field(ge=1, le=MAX_COUNT)]

    def processes_for(self, parts: int) -> int:
        """The number of processes that train a run whose batches have `parts` parts."""
        return min(parts, PROCESSES_PER_CORE * self.cores)


@cache
def kernel() -> str:
    """The name of the BLAS kernel, such as `openblas-haswell`, which determines the last bits of all results.

    A BLAS selects its kernel by processor. Import NumPy before calling this.
    """
    for library in threadpool_info():
        if library["user_api"] == "blas":
            return f"{library['internal_api']}-{library.get('architecture') or library['version']}".lower()
    return "unknown"


def publish(store: RunStore) -> None:
    """Publishes the capacity of this process, a worker, for the servers. Raises OSError."""
    of_this_process().write(store.root / NAME)


def of_workers(store: RunStore) -> Capacity:
    """The capacity of the worker that started last; without one, that of this process."""
    try:
        return Capacity.read(store.root / NAME)
    except (OSError, RunFileError):
        return of_this_process()


def of_this_process(root: Path = Path("/")) -> Capacity:
    """The capacity of this process. `root` is the directory of /proc and /sys."""
    memory = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for group in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # version 2 and version 1
            memory += _numbers(group / name)[:1]
    return Capacity(memory=min(memory), cores=max(1, math.ceil(_cores(root))))


def whole_cores(root: Path = Path("/")) -> int:
    """The number of whole cores that this process may use, at least 1. `root` as in `of_this_process`."""
    return max(1, int(_cores(root)))


def _cores(root: Path) -> float:
    """The cores of the CPU affinity mask, limited by the quotas of the control groups."""
    cores = [float(len(os.sched_getaffinity(0)))]
    for group in _groups(root, "cpu"):
        quota = _numbers(group / "cpu.max") or [
            *_numbers(group / "cpu.cfs_quota_us"),
            *_numbers(group / "cpu.cfs_period_us"),
        ]
        if len(quota) == 2:
            cores.append(quota[0] / quota[1])
    return min(cores)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The directories of the control groups of this process, innermost first, of either version."""
    tree = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            top = tree / controller if controllers else tree
            group = top / path.strip("/")
            yield from (each for each in (group, *group.parents) if each.is_relative_to(top))


def _numbers(path: Path) -> list[int]:
    """The numbers in a control file; none if the file is missing or has no limit (`max`, -1)."""
    words = " ".join(_lines(path)).split()
    return [int(word) for word in words] if all(word.isdecimal() for word in words) else []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
