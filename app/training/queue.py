"""Chooses the run that a worker trains next."""

from __future__ import annotations

import math
import time

from app.store.files import Identity, identity_of
from app.store.groups import members_of, waits
from app.store.records import Status
from app.store.run import Run
from app.store.run_store import RunStore
from app.store.scan import IDLE_RATE, Scan
from model.passes import shard_rows

LOOKS = 3  # stat calls for a run that has not changed: run.json, control.json, status.json
LEASE_LOOKS = 14  # maximum file operations to try a lease that another process holds


class Queue:
    """The unfinished runs of `store`, in the order in which a worker trains them.

    A run with more parts than `cores` is left to other workers for `patience` seconds.
    """

    def __init__(self, store: RunStore, cores: float, patience: float) -> None:
        self._store, self._cores, self._patience = store, cores, patience
        self._scan = Scan(store.root)
        self._runs: list[Run] = []
        self._waiting: list[Run] = []
        self._not_before: dict[str, float] = {}
        self._since: dict[str, float] = {}
        self._leases: dict[str, Identity] = {}
        self._alive: set[str] = set()

    def look(self) -> list[Run]:
        """Reads all runs again if it is time. Returns runs with state "training" that were asked to stop."""
        if not self._scan.due(1 + LOOKS * len(self._runs)):
            return []
        waiting, asked = [], []
        self._runs = self._store.list()
        read = {run.name: (run, run.status) for run in self._runs}
        for run, status in read.values():
            control = run.control
            if control.wanted in ("pause", "stop") and status.state == "training":
                asked.append(run)
            status = control.applied_to(status)
            if _unfinished(status) and not waits(run, read):
                fresh = status.step == 0 and status.state == "queued"
                waiting.append((-control.priority, fresh, run.spec.position, run))
        self._waiting = [run for *_, run in sorted(waiting, key=lambda item: item[:3])]
        now, names = time.monotonic(), {run.name for run in self._waiting}
        self._since = {name: self._since.get(name, now) for name in names}
        self._not_before = {name: at for name, at in self._not_before.items() if name in names and at > now}
        self._leases = {name: lease for name, lease in self._leases.items() if name in names}
        return [run for run in asked if self.ready(run)]

    def taken(self, run: Run) -> None:
        """Records that this worker has held the run; the next `look` reads all runs again."""
        self._leases.pop(run.name, None)
        self._alive.clear()
        self._scan.forget()

    def first(self) -> Run | None:
        """The run to train now; None if there is none."""
        return next((run for run in self._waiting if self.ready(run) and self._fits(run)), None)

    def more_important(self, priority: int, seconds: float) -> Run | None:
        """A run of a higher priority that no worker has begun for `seconds`; None if there is none."""
        for run in self._waiting:
            if run.control.priority <= priority:
                return None
            overdue = time.monotonic() - self._since[run.name] >= seconds and run.standing.state == "queued"
            if overdue and self.ready(run) and self._fits(run):
                return run
        return None

    def wants(self, run: Run) -> bool:
        """Whether a run that this worker now holds still needs training: another worker may have done it."""
        if run.control.wanted in ("pause", "stop"):
            return False
        members = {one.name: (one, one.status) for one in members_of(self._store, run)}
        return _unfinished(run.standing) and not waits(run, members)

    def leave(self, name: str, seconds: float) -> None:
        """Skips the run for `seconds`."""
        self._not_before[name] = time.monotonic() + seconds

    def held_elsewhere(self, name: str) -> None:
        """Skips a run that another process holds, but only briefly, because attempts detect a dead holder."""
        lease = identity_of(self._store.leases.path(name))
        if self._leases.setdefault(name, lease) != lease:
            self._alive.add(name)
            self._leases[name] = lease
        pause = max(self._store.leases.seconds / 6, LEASE_LOOKS * len(self._leases) / IDLE_RATE)
        self.leave(name, pause)

    def idle(self) -> bool:
        """Whether each unfinished run is trained by another live process or does not fit here."""
        return all(run.name in self._alive or not self._could_fit(run) for run in self._waiting)

    def ready(self, run: Run) -> bool:
        """Whether the run is not being skipped."""
        return time.monotonic() >= self._not_before.get(run.name, 0.0)

    def _could_fit(self, run: Run) -> bool:
        return math.isfinite(self._patience) or parts(run) <= self._cores

    def _fits(self, run: Run) -> bool:
        waited = time.monotonic() - self._since[run.name]
        return parts(run) <= self._cores or waited >= self._patience


def _unfinished(status: Status) -> bool:
    return status.state in ("queued", "training") or status.retry_at is not None


def parts(run: Run) -> int:
    """The number of processes that can train a run in parallel; 1 for a group, which is only merged."""
    return 1 if run.spec.apart else run.config.members * len(shard_rows(run.config))
