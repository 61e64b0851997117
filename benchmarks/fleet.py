"""A simulation of many servers and workers on one store, from the measurements of benchmarks.scale.

It is deterministic and uses no clock. The rule for when a process reads all runs again is the real one
(app/store/scan.py), evaluated at simulated times. One server and one worker are simulated; all others are
assumed to behave the same.
"""

import math
from dataclasses import dataclass
from functools import cache
from unittest import mock

from app.engine.models import LOOKS as SERVER_LOOKS
from app.store import scan
from app.store.leases import LEASE_SECONDS
from app.training.queue import LEASE_LOOKS
from app.training.queue import LOOKS as WORKER_LOOKS
from app.training.trainer import Cadence
from app.training.worker import RANK_SHARE

SERVER_POLLS = 4  # checks of the store's directory per second; a worker in training makes one
CACHED_POLLS = 1  # of these, the ones that reach the file system with the mount option actimeo=1
SIMULATED_SECONDS = 1800
READ_BYTES = 1 << 20  # bytes read by one operation of a network file system
RUN_MINUTES = 10  # of training; all processes notice the start and the end of each run


@dataclass(frozen=True)
class Volume:
    """What a file system provides per second: operations, writes and bytes; and its latency in seconds."""

    name: str
    operations: float
    writes: float
    read_bytes: float
    written_bytes: float
    latency: float


@dataclass(frozen=True)
class Fleet:
    """`follows`: whether servers answer from the newest checkpoint of all runs instead of a named model."""

    servers: int
    workers: int
    runs: int
    follows: bool = True

    @property
    def training(self):
        return min(self.workers, self.runs)


@dataclass(frozen=True)
class Costs:
    """The measured costs.

    Attributes:
        training: operations per second of a worker in training, of which `writes` write.
        first_look: operations per run when a process reads all runs for the first time.
    """

    training: float
    writes: float
    first_look: float
    checkpoint_bytes: float


class _News(scan.Scan):
    """The rule, for a directory that changes at regular intervals."""

    def __init__(self, every):
        super().__init__("")
        self.every, self.now = every, 0.0

    def clock(self):
        return self.now

    def _time(self):
        return math.floor(self.now / self.every)


@cache
def reading(looks, polls, news_every):
    """Operations per second spent on reading all runs again, where one reading takes `looks` operations."""
    one, count = _News(news_every), 0
    with mock.patch.object(scan.time, "monotonic", one.clock):
        for tick in range(SIMULATED_SECONDS * polls):
            one.now = tick / polls
            count += one.due(looks)
    return looks * count / SIMULATED_SECONDS


def simulate(fleet, costs, volume):
    """{quantity: value} of a fleet on a volume."""
    training, checkpoint_seconds = fleet.training, Cadence().checkpoint_seconds
    news_every = 60 * RUN_MINUTES / (2 * training)
    worker_looks = 1 + WORKER_LOOKS * fleet.runs
    queue = min(reading(worker_looks, 1, news_every), RANK_SHARE / volume.latency)
    loads = min(SERVER_POLLS, training / checkpoint_seconds) if fleet.follows else 0
    server = CACHED_POLLS * (1 + training) + reading(1 + SERVER_LOOKS * fleet.runs, SERVER_POLLS, news_every)
    server += loads * (3 + costs.checkpoint_bytes / READ_BYTES)
    retry = max(LEASE_SECONDS / 6, LEASE_LOOKS * training / scan.IDLE_RATE)
    return {
        "operations": fleet.servers * server + training * (costs.training + queue),
        "writes": training * costs.writes,
        "read_bytes": fleet.servers * loads * costs.checkpoint_bytes,
        "written_bytes": training * costs.checkpoint_bytes / checkpoint_seconds,
        "news": worker_looks * max(1 / scan.BUSY_RATE, volume.latency) + scan.SETTLED_SECONDS,
        "first_list": costs.first_look * fleet.runs * volume.latency,
        "taken_over": retry * (1 + math.ceil(LEASE_SECONDS / retry)),
    }


def breaks(whole, costs, volume):
    """{limit of the volume: the smallest fleet that exceeds it}, in proportion to `whole`, smallest first."""
    found = {}
    for part in range(1, 1001):
        fleet = share(whole, part / 1000)
        figures = simulate(fleet, costs, volume)
        for what in ("operations", "writes", "read_bytes", "written_bytes"):
            if figures[what] > getattr(volume, what):
                found.setdefault(what, fleet)
    return found


def share(whole, part):
    """A fleet of the given fraction of `whole`, with at least one of each kind."""
    counts = [max(1, round(part * count)) for count in (whole.servers, whole.workers, whole.runs)]
    return Fleet(*counts, whole.follows)
