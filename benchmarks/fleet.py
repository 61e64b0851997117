"""A simulation of many servers and workers on one store, from what benchmarks.scale measures.

Deterministic and without a clock: the rule by which a process reads all runs again is the program's own
(app/store/scan.py), asked at simulated times. One server and one worker are simulated and stand for all.
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

SERVER_POLLS = 4  # looks at the store's folder a second; a worker in training takes one
CACHED_POLLS = 1  # those that reach the file system with the mount's option actimeo=1
SIMULATED_SECONDS = 1800
READ_BYTES = 1 << 20  # that one operation of a network file system reads
RUN_MINUTES = 10  # of training: the begin and the end of each are news to all processes


@dataclass(frozen=True)
class Volume:
    """What a file system gives per second: operations, of which some write, and bytes; seconds per answer."""

    name: str
    operations: float
    writes: float
    read_bytes: float
    written_bytes: float
    latency: float


@dataclass(frozen=True)
class Fleet:
    """`follows`: whether servers answer from the newest checkpoint of all, not from a named model."""

    servers: int
    workers: int
    runs: int
    follows: bool = True

    @property
    def training(self):
        return min(self.workers, self.runs)


@dataclass(frozen=True)
class Costs:
    """What was measured.

    Attributes:
        training: operations per second of a worker in training; `writes` are those that write.
        first_look: operations per run when a process reads all runs for the first time.
    """

    training: float
    writes: float
    first_look: float
    checkpoint_bytes: float


class _News(scan.Scan):
    """The rule, for a folder that changes in regular intervals."""

    def __init__(self, every):
        super().__init__("")
        self.every, self.now = every, 0.0

    def clock(self):
        return self.now

    def _time(self):
        return math.floor(self.now / self.every)


@cache
def reading(looks, polls, news_every):
    """Operations a second of reading all runs again, each time with so many looks."""
    one, count = _News(news_every), 0
    with mock.patch.object(scan.time, "monotonic", one.clock):
        for tick in range(SIMULATED_SECONDS * polls):
            one.now = tick / polls
            count += one.due(looks)
    return looks * count / SIMULATED_SECONDS


def simulate(fleet, costs, volume):
    """{what: figure} of a fleet on a volume."""
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
    """{what is used up: the smallest fleet that does}, of the proportions of `whole`; the first first."""
    found = {}
    for part in range(1, 1001):
        fleet = share(whole, part / 1000)
        figures = simulate(fleet, costs, volume)
        for what in ("operations", "writes", "read_bytes", "written_bytes"):
            if figures[what] > getattr(volume, what):
                found.setdefault(what, fleet)
    return found


def share(whole, part):
    """A fleet of that part of the whole's size, with at least one of each."""
    counts = [max(1, round(part * count)) for count in (whole.servers, whole.workers, whole.runs)]
    return Fleet(*counts, whole.follows)
