"""The loss of a network on a text, in nats per character."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.batches import Batches, Ids
from model.errors import TextError
from model.loss import character_losses
from model.network import Network

STREAMS = 32
SEQUENCE_LENGTH = 64
SHORTEST_STREAM = 512  # characters; in shorter streams the zero state at the start would weigh too much


def streaming_loss(network: Network, ids: Ids) -> float:
    """The mean loss over `ids` (N,) with carried state, as in generation.

    Long texts are read as up to 32 parallel streams, each from the zero state. Raises TextError if there are
    fewer than two characters.
    """
    return mean_logits_loss([network], ids)


def mean_logits_loss(networks: Sequence[Network], ids: Ids) -> float:
    """`streaming_loss` of an ensemble, given its members.

    The merged network would give the same loss but has more weights: for 8 GRUs of 256 units this takes a
        sixth of
    the time.
    """
    streams = max(1, min(STREAMS, len(ids) // SHORTEST_STREAM))
    length = min(SEQUENCE_LENGTH, max(1, (len(ids) - 1) // streams))
    batches = Batches(ids, length, streams)
    tapes = [network.tape(length, streams) for network in networks]
    states = [network.zero_state(streams) for network in networks]
    total = 0.0
    for index in range(batches.windows_per_epoch):
        window = batches.window(index)
        each = [
            network.forward(window.inputs, state, tape)[0]
            for network, state, tape in zip(networks, states, tapes, strict=True)
        ]
        logits = each[0] if len(each) == 1 else np.mean(each, axis=0)
        losses = character_losses(logits, window.targets)
        total += float(np.mean(losses, dtype=np.float64))
        states = [tape.final_state for tape in tapes]
    return total / batches.windows_per_epoch


def windowed_loss(network: Network, ids: Ids, length: int) -> float:
    """The mean loss over `ids` (N,) in windows of `length` characters, each from the zero state.

    It is comparable with the loss of a model whose context is at most `length` characters. Characters at the
    end that do not fill a window are left out. Raises TextError if there is no complete window.
    """
    count = (len(ids) - 1) // length
    if count < 1:
        raise TextError(f"{len(ids)} characters contain no window of {length}: {length + 1} are needed")
    inputs = ids[: count * length].reshape(count, length).T
    targets = ids[1 : count * length + 1].reshape(count, length).T
    total = 0.0
    for start in range(0, count, STREAMS):
        rows = slice(start, start + STREAMS)
        logits, _ = network.forward(inputs[:, rows], network.zero_state(inputs[:, rows].shape[1]))
        total += float(character_losses(logits, targets[:, rows]).sum(dtype=np.float64))
    return total / (count * length)
