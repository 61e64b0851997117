"""How many cores this process may use: a container's quota counts, not the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def usable_cores(cgroups: Path = CGROUPS, own: Path = OWN) -> int:
    """Whole cores, at least one: those that the process may run on, and no more than its cgroups' quotas."""
    cores = float(len(os.sched_getaffinity(0)))
    return max(1, int(min([cores, *_quotas(cgroups, own)])))


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """The quotas, in cores, of the process's cgroup and of those that it is in (version 2, and 1)."""
    for folder in _folders(cgroups, own):
        with suppress(OSError, ValueError):  # there is none: the file is missing, or says "max"
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) / int(period)
        with suppress(OSError, ValueError):
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if int(quota) > 0:
                yield int(quota) / int(period)


def _folders(cgroups: Path, own: Path) -> Iterator[Path]:
    """Within a container the own cgroup is the root of what is mounted, whatever its name says."""
    yield from (cgroups, cgroups / "cpu")
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            root = cgroups / "cpu" if controllers else cgroups
            place = Path(path.lstrip("/"))
            yield from (root / folder for folder in (place, *place.parents))
