"""The forward and backward passes of a batch, split into parts that can be run in parallel.

A part is one member of the ensemble on one shard of the batch's rows. A member's gradient is the sum over its
shards in a fixed order, so serial and parallel runs give the same bits. The number of shards does affect the
last bits, which is why it belongs to a run's configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np

from model import buffers
from model.batches import Ids, Window
from model.cells import Array
from model.config import RunConfig
from model.loss import cross_entropy
from model.network import Network
from model.orthogonal import Blocks


class Passes(Protocol):
    """Runs the forward and backward passes of all members.

    Attributes:
        gradients: the gradients of the last batch, (M, P).
    """

    gradients: Array

    def run(self, window: Window, state: Array) -> float:
        """Returns the members' mean loss on the window, in nats per character.

        Updates `gradients`, and `state` (L, S, B, M*H) to the state after the window.
        """
        ...

    def orthogonalise(self) -> None:
        """Orthogonalises each gate's block of Muon's matrices in `gradients`, in place."""
        ...


class Part:
    """One member on one shard of the rows.

    Args:
        network: the member.
        config: the settings.
        index: the part's position in `parts`.
        gradient: (P,), receives these rows' share of the gradient.
    """

    def __init__(self, network: Network, config: RunConfig, index: int, gradient: Array) -> None:
        shards = shard_rows(config)
        member, shard = divmod(index, len(shards))
        self.network, self.rows, self.reduction = network, shards[shard], config.reduction
        self.units = slice(member * config.hidden, (member + 1) * config.hidden)
        count = self.rows.stop - self.rows.start
        self.share = count / config.streams
        self.tape = network.tape(config.sequence_length, count)
        self.gradient = Network(network.config, gradient)

    def run(self, inputs: Ids, targets: Ids, state: Array) -> float:
        """Returns these rows' share of the mean loss. Takes the batch: ids (T, B), state (L, S, B, M*H)."""
        rows, part = self.rows, state[:, :, self.rows, self.units]
        logits, tape = self.network.forward(inputs[:, rows], part, self.tape)
        loss, dlogits = cross_entropy(logits, targets[:, rows], self.reduction)
        if self.reduction == "mean" and self.share < 1:
            np.multiply(dlogits, self.share, out=dlogits)
        self.network.backward(dlogits, tape, self.gradient)
        tape.copy_final_state(part)
        return float(loss * self.share)


class SerialPasses:
    """Runs the parts one after another, in this process."""

    def __init__(self, members: Sequence[Network], config: RunConfig) -> None:
        flat = members[0].flat
        memory = buffers.zeros(gradients_shape(config, flat.size), flat.dtype)
        gradients = by_member(memory, len(members), flat.size)
        self.parts = parts(members, config, gradients)
        self._shards = gradients
        self.gradients = gradients[0]
        self.orthogonalise = Blocks(members[0].config, config, self.gradients).orthogonalise

    def run(self, window: Window, state: Array) -> float:
        losses = [part.run(window.inputs, window.targets, state) for part in self.parts]
        return summed(losses, self._shards)


def gradients_shape(config: RunConfig, size: int) -> tuple[int, int]:
    """(shards, M*P or more), the shape of memory for the gradients of M members of P = `size` parameters.

    It is padded so that each shard begins at a cache line.
    """
    return len(shard_rows(config)), buffers.whole_lines(config.members * size, np.float32)


def by_member(memory: Array, members: int, size: int) -> Array:
    """A view (shards, M, P) of memory of the shape `gradients_shape`."""
    return memory[:, : members * size].reshape(len(memory), members, size)


def summed(losses: Sequence[float], gradients: Array) -> float:
    """Returns the members' mean loss; adds the gradients of all shards, (shards, M, P), to the first's."""
    for gradient in gradients[1:]:
        np.add(gradients[0], gradient, out=gradients[0])
    return sum(losses) / int(gradients.shape[1])


def parts(members: Sequence[Network], config: RunConfig, gradients: Array) -> list[Part]:
    """All parts, member by member; `gradients` is (shards, M, P)."""
    return [
        Part(member, config, m * len(gradients) + shard, gradients[shard, m])
        for m, member in enumerate(members)
        for shard in range(len(gradients))
    ]


def shard_rows(config: RunConfig) -> list[slice]:
    """The rows of each shard: contiguous and of about equal numbers, none empty."""
    count = min(config.shards, config.streams)
    edges = [config.streams * index // count for index in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(edges)]
