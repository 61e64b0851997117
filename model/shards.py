"""A batch's forward and backward pass in shards of its rows: in turn or, by the caller's means, at once.

The gradient of a batch is the sum of its shards'. They are summed in a fixed order, so that how the shards
were run, in turn or in parallel, does not show in a single bit of the result. How many there are does, in the
last bits, which is why their number belongs to a run's configuration.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import numpy as np

from model.batches import Ids, Window
from model.cells import Array
from model.config import RunConfig
from model.loss import cross_entropy
from model.network import Network


class Passes(Protocol):
    """Runs forward and backward passes.

    Attributes:
        gradient: of the last batch.
    """

    gradient: Network

    def run(self, window: Window, state: Array) -> float:
        """The window's loss in nats per character; carries `state` (L, S, B, H) on, in place."""
        ...


class Shard:
    """Some rows of every batch: their tape and their gradient.

    `share` is their part of the batch. The gradient is that of the batch's loss, as far as these rows go.
    """

    def __init__(
        self, network: Network, config: RunConfig, rows: slice, gradient: Network | None = None
    ) -> None:
        self.network, self.rows, self.reduction = network, rows, config.reduction
        count = rows.stop - rows.start
        self.share = count / config.streams
        self.tape = network.tape(config.sequence_length, count)
        self.gradient = gradient or Network(network.config, np.zeros_like(network.flat))

    def run(self, inputs: Ids, targets: Ids, state: Array) -> float:
        """Their mean loss times their share of the batch; inputs, targets (T, B), state (L, S, B, H)."""
        rows, part = self.rows, state[:, :, self.rows]
        logits, tape = self.network.forward(inputs[:, rows], part, self.tape)
        loss, dlogits = cross_entropy(logits, targets[:, rows], self.reduction)
        if self.reduction == "mean" and self.share < 1:
            np.multiply(dlogits, self.share, out=dlogits)
        self.network.backward(dlogits, tape, self.gradient)
        tape.copy_final_state(part)
        return float(loss * self.share)


class InTurn:
    """The shards one after another, in this process."""

    def __init__(self, network: Network, config: RunConfig) -> None:
        self.shards = [Shard(network, config, rows) for rows in shard_rows(config)]
        self.gradient = self.shards[0].gradient

    def run(self, window: Window, state: Array) -> float:
        loss = 0.0
        for shard in self.shards:
            loss += shard.run(window.inputs, window.targets, state)
        for shard in self.shards[1:]:
            np.add(self.gradient.flat, shard.gradient.flat, out=self.gradient.flat)
        return loss


def shard_rows(config: RunConfig) -> list[slice]:
    """The rows of each shard: contiguous, as equal as can be, none empty."""
    count = min(config.shards, config.streams)
    edges = [config.streams * index // count for index in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(edges)]
