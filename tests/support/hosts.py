"""Workers as if on several machines: each process has its own host name and, where that is permitted, its own
network. No worker can check whether another's process is alive, and they share nothing but the store."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from multiprocessing.context import ForkServerContext, ForkServerProcess

import pytest

from app.signals import Stop, stop_on_signals
from app.store.run import Run
from app.store.run_store import RunStore
from app.training.worker import Worker, prepare
from tests.support.runs import LONGEST_WAIT, classic_like

NAMESPACES = {"--uts": 0x04000000, "--net": 0x40000000}  # options of `unshare`; flags of the system call
LEASE = 1.0  # seconds; short, so that a run is taken over soon
UPDATE_SECONDS = 0.002  # minimum, so that a run lasts until it is taken over on a fast machine as well

# several seconds of training, with a checkpoint every few milliseconds
LONG = classic_like(steps=3000, hidden=24, checkpoint_every=50, record_every=10, sample_every=0)
SHORT = classic_like(steps=60, sample_every=0)


def separate_hosts() -> ForkServerContext:
    """A context whose processes can set a host name. Skips the test where that is not permitted."""
    if not permitted("--uts"):
        pytest.skip("cannot give a process its own host name (only root can)")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.hosts"])
    return context


@cache
def permitted(namespace: str) -> bool:
    """Whether a process of this machine may have such a namespace of its own."""
    return not subprocess.run(["unshare", namespace, "true"], capture_output=True).returncode


class Host:
    """A worker of `store` on a machine called `name` whose clock is `ahead` seconds fast; it keeps a log."""

    def __init__(
        self,
        context: ForkServerContext,
        store: RunStore,
        name: str,
        *,
        lease: float = LEASE,
        ahead: float = 0.0,
        until_idle: bool = False,
        setup: str = "",
    ) -> None:
        self.name, self.log_path = name, store.root.parent / f"{name}.log"
        flags = sum(flag for option, flag in NAMESPACES.items() if permitted(option))
        self.process: ForkServerProcess = context.Process(
            target=_work,
            args=(flags, str(store.root), name, lease, ahead, until_idle, setup, str(self.log_path)),
            daemon=True,
        )
        self.process.start()

    def signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    @property
    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def join(self) -> None:
        """Wait for the worker to end, and check that it ended with exit code 0."""
        self.process.join(LONGEST_WAIT)
        assert self.process.exitcode == 0, self.log


def finished(run: Run) -> bool:
    return run.status.state == "finished"


@contextlib.contextmanager
def ended(*hosts: Host) -> Iterator[None]:
    """Kill the hosts at the end of the block, including suspended ones."""
    try:
        yield
    finally:
        for host in hosts:
            host.process.kill()
        for host in hosts:
            host.process.join(LONGEST_WAIT)


class SlowStop(Stop):
    """Takes UPDATE_SECONDS to answer; training calls it after each update."""

    def __call__(self) -> bool:
        time.sleep(UPDATE_SECONDS)
        return super().__call__()


def _work(
    flags: int, root: str, name: str, lease: float, ahead: float, until_idle: bool, setup: str, log: str
) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")
    socket.sethostname(name)
    if ahead:
        honest = time.time
        time.time = lambda: honest() + ahead
    exec(setup, {})
    logging.basicConfig(filename=log, level="INFO", format="%(message)s", force=True)
    store, stop = RunStore(root, lease), SlowStop()
    with stop_on_signals(stop):
        prepare(store)
        Worker(store, stop, until_idle=until_idle).run()
    sys.exit(0)
