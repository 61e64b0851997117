"""The number of processes for `auto`: the cores of the machine, limited by the quota of a container."""

import os
from pathlib import Path

import pytest

from app.store.capacity import whole_cores


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "own", "cores"),
    [
        ({}, "", 8),
        ({"cpu.max": "max 100000\n"}, "0::/\n", 8),
        ({"cpu.max": "250000 100000\n"}, "0::/\n", 2),
        ({"cpu.max": "50000 100000\n"}, "0::/\n", 1),
        ({"cpu.max": "1600000 100000\n"}, "0::/\n", 8),
        ({"a.slice/cpu.max": "300000 100000\n", "a.slice/b/cpu.max": "max 100000\n"}, "0::/a.slice/b\n", 3),
        ({"a/cpu.max": "100000 100000\n"}, "0::/b\n", 8),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "3:cpu,cpuacct:/\n", 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "3:cpu,cpuacct:/\n", 8),
        (
            {"cpu/a/cpu.cfs_quota_us": "200000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            "3:cpu:/a\n2:pids:/x\n",
            2,
        ),
    ],
)
def test_cores_are_limited_by_the_quota_of_the_container(tmp_path, monkeypatch, files, own, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    root = tree(tmp_path, {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    tree(root, {"proc/self/cgroup": own})
    assert whole_cores(root) == cores


def test_cores_are_those_of_the_process_affinity(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 6})
    assert whole_cores(tmp_path) == 3
