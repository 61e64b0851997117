"""What a worker may use of its machine, memory and cores, published in the store; and what computes here.

A container's own limits count, from either version of Linux's control groups. Server and worker may be in two
containers, and the worker's limits are what a run has to fit into.
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

NAME = ".worker.json"  # in the folder of the store
PROCESSES_A_CORE = 4  # some more than one, so that the cores are busy to the end of most batches


class Capacity(Record):
    """Bytes of memory, and cores, that the processes of a container or a machine share."""

    memory: Count
    cores: Annotated[int, Field(ge=1, le=MAX_COUNT)]

    def processes_for(self, parts: int) -> int:
        """How many processes train a run whose batches have so many parts."""
        return min(parts, PROCESSES_A_CORE * self.cores)


@cache
def kernel() -> str:
    """What multiplies matrices here, such as `openblas-haswell`: it decides the last bits of all results.

    A BLAS chooses its kernel by the processor. Only to be asked once NumPy is loaded.
    """
    for library in threadpool_info():
        if library["user_api"] == "blas":
            return f"{library['internal_api']}-{library.get('architecture') or library['version']}".lower()
    return "unknown"


def publish(store: RunStore) -> None:
    """For a worker that begins: tell the servers what it has. Raises OSError."""
    of_this_process().write(store.root / NAME)


def of_workers(store: RunStore) -> Capacity:
    """What the worker that began last has; without one, what this process has."""
    try:
        return Capacity.read(store.root / NAME)
    except (OSError, RunFileError):
        return of_this_process()


def of_this_process(root: Path = Path("/")) -> Capacity:
    """What this process may use; `root` is where /proc and /sys are."""
    memory = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for group in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # of version 2, and of version 1
            memory += _numbers(group / name)[:1]
    return Capacity(memory=min(memory), cores=max(1, math.ceil(_cores(root))))


def whole_cores(root: Path = Path("/")) -> int:
    """Cores that this process can keep busy, at least one: of half a core it has none. `root` as above."""
    return max(1, int(_cores(root)))


def _cores(root: Path) -> float:
    """Those that the process may run on, and no more than the quotas of its control groups."""
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
    """The folders of the control groups that this process is in, the innermost first, of either version."""
    tree = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            top = tree / controller if controllers else tree
            group = top / path.strip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _numbers(path: Path) -> list[int]:
    """The numbers of a control file; none where there is no such file, or no limit (`max`, -1)."""
    words = " ".join(_lines(path)).split()
    return [int(word) for word in words] if all(word.isdecimal() for word in words) else []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
