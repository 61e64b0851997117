"""Estimates the memory and disk space of a run, before it is queued and before it is trained.

The estimate adds up the arrays of training; a test compares it with a worker's memory. It does not have to be
exact: its purpose is to refuse a run whose worker would be killed at the first update.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from app.intake.planning import expected_speed, updates
from app.store.capacity import Capacity
from app.store.space import Budget
from model.cells import CELLS
from model.checkpoint import MAX_BYTES
from model.config import MAX_SAMPLED_CHECKPOINTS, RunConfig
from model.ensemble import member_config, network_config
from model.errors import ConfigError
from model.evaluation import SEQUENCE_LENGTH, STREAMS
from model.generation import WIDEST
from model.ngram import MAX_COUNTED
from model.passes import shard_rows

WORD = 4  # bytes of a number
WORKER, HELPER = 60 << 20, 20 << 20  # bytes of an idle process
VIEWS = 4096  # bytes of the array views of one step of one layer
CHARACTER, COMPARED = 16, 90  # bytes per character in training, and while n-grams are counted
COPIES = 3  # copies of a checkpoint's arrays while it is written
KEPT = 12  # checkpoints in addition to the sampled ones: the newest, the anchors, the best


class Needs(NamedTuple):
    """The needs of a run in bytes: memory by purpose, one checkpoint, and all files on disk."""

    weights: int
    activations: int
    text: int
    processes: int
    checkpoint: int
    disk: int

    @property
    def memory(self) -> int:
        return self.weights + self.activations + self.text + self.processes


def needs_of(config: RunConfig, characters: int, distinct: int, worker: Capacity) -> Needs:
    """The needs of a run on a text of `characters` characters, `distinct` of them distinct."""
    members, rows = config.members, [part.stop - part.start for part in shard_rows(config)]
    parts = members * len(rows)
    trained = WORD * members * member_config(config, distinct).size()
    served = WORD * network_config(config, distinct).size()
    moments = 1 if config.optimizer == "adagrad" else 2
    checkpoint = 2 * served + (moments + (members > 1)) * trained
    # parameters, their shared copy, decay, moments, a gradient per shard; the best, and the merged network
    weights = trained * (3 + moments + len(rows)) + served * (1 + (members > 1))
    passes = sum(_tape(config, config.hidden, config.sequence_length, count, distinct) for count in rows)
    judged = _tape(config, members * config.hidden, SEQUENCE_LENGTH, STREAMS, distinct)
    sampled = 3 * served + _tape(config, members * config.hidden, 1, WIDEST, distinct)
    return Needs(
        weights=weights + max(COPIES * checkpoint, judged, sampled),
        activations=members * passes + VIEWS * config.layers * config.sequence_length * parts,
        text=CHARACTER * characters + COMPARED * min(characters, MAX_COUNTED),
        processes=WORKER + HELPER * (worker.processes_for(parts) - 1),
        checkpoint=checkpoint,
        disk=checkpoint * (KEPT + _sampled(config, distinct)) + WORD * characters,
    )


def _tape(config: RunConfig, hidden: int, steps: int, rows: int, distinct: int) -> int:
    """The bytes of the arrays of a pass over `steps` steps of `rows` rows."""
    cell = CELLS[config.cell]
    layer = steps * rows * hidden * (cell.cached + cell.gates + 2 * cell.states) + 3 * cell.gates * hidden**2
    embedded = 3 * distinct * cell.gates * hidden if config.embedding else 0
    return WORD * (config.layers * layer + embedded + 2 * steps * rows * distinct)


def _sampled(config: RunConfig, distinct: int) -> int:
    """The number of checkpoints that are kept because the run wrote a sample there."""
    if not config.sample_every:
        return 0
    steps = updates(config, expected_speed(config, distinct)) if config.minutes else config.steps
    return min(MAX_SAMPLED_CHECKPOINTS, int(steps // config.sample_every))


def check_memory(config: RunConfig, characters: int, distinct: int, worker: Capacity) -> Needs:
    """The needs of a run. Raises ConfigError if they exceed the worker's memory or MAX_BYTES."""
    needs = needs_of(config, characters, distinct, worker)
    if needs.memory > worker.memory:
        raise ConfigError(
            "streams" if needs.activations > needs.weights else "hidden",
            f"needs too much memory: training this run takes about {_size(needs.memory)} "
            f"({_size(needs.weights)} for weights and optimizer, {_size(needs.activations)} for activations, "
            f"{_size(needs.text)} for the text, {_size(needs.processes)} for processes), and the worker has "
            f"{_size(worker.memory)}. Choose fewer units, layers, members, shards or streams, or a shorter "
            "sequence_length or text",
        )
    if needs.checkpoint > MAX_BYTES:
        raise ConfigError(
            "hidden",
            f"makes the network too large: a checkpoint would have {_size(needs.checkpoint)}, and at most "
            f"{_size(MAX_BYTES)} are read. Choose fewer units, layers or members",
        )
    return needs


def check_needs(config: RunConfig, characters: int, distinct: int, worker: Capacity, budget: Budget) -> None:
    """Raises ConfigError as `check_memory`, and OSError if the run's files do not fit on the disk."""
    needs = check_memory(config, characters, distinct, worker)
    free = budget.available()
    if needs.disk > free:
        raise OSError(
            errno.ENOSPC,
            f"the run would keep about {_size(needs.disk)} of checkpoints ({_size(needs.checkpoint)} each) "
            f"and text, and the store has room for {_size(free)}: choose a larger sample_every or a smaller "
            "network",
        )


def _size(count: float) -> str:
    """A number of bytes as text."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"
