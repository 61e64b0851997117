import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from app.store.capacity import NAME, Capacity, kernel, of_this_process, of_workers, publish
from app.store.run_store import RunStore
from app.worker import run_worker

CORES = len(os.sched_getaffinity(0))
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def machine(root: Path, group: str, files: dict[str, str]) -> Path:
    """A directory with a /proc/self/cgroup and the files of control groups."""
    for name, content in {"proc/self/cgroup": group, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("", {}, (MEMORY, CORES)),
        ("0::/\n", {"memory.max": "max\n", "cpu.max": "max 100000\n"}, (MEMORY, CORES)),
        ("0::/\n", {"memory.max": "1048576\n", "cpu.max": "50000 100000\n"}, (1 << 20, 1)),
        # the limit of an outer group also applies
        ("0::/a/b\n", {"a/memory.max": "1048576\n", "a/b/memory.max": "2097152\n"}, (1 << 20, CORES)),
        (
            "4:memory:/a\n3:cpu,cpuacct:/a\n",
            {
                "memory/a/memory.limit_in_bytes": "1048576\n",
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "cpu/a/cpu.cfs_quota_us": "90000\n",
                "cpu/a/cpu.cfs_period_us": "100000\n",
            },
            (1 << 20, 1),
        ),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, (MEMORY, CORES)),
        # a container with cgroup version 1 that sees its own group as the root
        ("4:memory:/docker/1\n", {"memory/memory.limit_in_bytes": "1048576\n"}, (1 << 20, CORES)),
    ],
)
def test_memory_and_cores_are_limited_by_control_groups(tmp_path: Path, group, files, expected):
    root = machine(tmp_path, group, {f"sys/fs/cgroup/{name}": content for name, content in files.items()})
    found = of_this_process(root)
    assert (found.memory, found.cores) == expected


def test_kernel_is_that_of_the_blas_in_use():
    environment = os.environ | {"OPENBLAS_CORETYPE": "Nehalem"}
    program = "import numpy; from app.store.capacity import kernel; print(kernel())"
    command = [sys.executable, "-P", "-c", program]
    reported = subprocess.check_output(command, env=environment, text=True, timeout=60).strip()
    expected = "openblas-nehalem" if platform.machine() == "x86_64" else kernel()
    assert reported == expected


def test_capacity_of_workers_is_the_published_one(tmp_path: Path):
    store = RunStore(tmp_path / "store")
    assert of_workers(store) == of_this_process()
    store.make_root()
    publish(store)
    assert Capacity.read(store.root / NAME) == of_this_process()
    Capacity(memory=1 << 20, cores=3).write(store.root / NAME)
    assert of_workers(store) == Capacity(memory=1 << 20, cores=3)
    (store.root / NAME).write_text("{")
    assert of_workers(store) == of_this_process()


def test_new_runs_have_to_fit_the_worker_that_began_last(tmp_path: Path, monkeypatch):
    settings = Settings(store=tmp_path / "store")
    for memory in (1 << 30, 4 << 30, 2 << 30):
        began = Capacity(memory=memory, cores=3)
        monkeypatch.setattr("app.store.capacity.of_this_process", lambda began=began: began)
        run_worker(settings, until_idle=True)
        # also after its end: workers that start with the queue are not there when a run is uploaded
        assert of_workers(RunStore(settings.store)) == began
