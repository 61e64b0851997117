"""Losses on a text the network was not trained on, in nats per character."""

from __future__ import annotations

import numpy as np

from model.batches import Batches, Ids
from model.errors import TextError
from model.loss import character_losses
from model.network import Network

STREAMS = 32
SEQUENCE_LENGTH = 64
SHORTEST_STREAM = 512  # below this, the cold start of each stream would weigh too much


def streaming_loss(network: Network, ids: Ids) -> float:
    """Mean loss over `ids`, read with carried state: what a user of the network gets.

    Long texts are read as up to 32 streams side by side, each from the zero state. Raises TextError if there
    are fewer than two characters.
    """
    streams = max(1, min(STREAMS, len(ids) // SHORTEST_STREAM))
    length = min(SEQUENCE_LENGTH, max(1, (len(ids) - 1) // streams))
    batches = Batches(ids, length, streams)
    tape = network.tape(length, streams)
    state = network.zero_state(streams)
    total = 0.0
    for index in range(batches.windows_per_epoch):
        window = batches.window(index)
        logits, _ = network.forward(window.inputs, state, tape)
        total += float(np.mean(character_losses(logits, window.targets), dtype=np.float64))
        state = tape.final_state
    return total / batches.windows_per_epoch


def windowed_loss(network: Network, ids: Ids, length: int) -> float:
    """Mean loss over `ids` cut into windows of `length`, each read from the zero state.

    This is what a model that sees at most `length` characters is judged by. Characters at the end that fill
    no window are left out. Raises TextError if there is not one window.
    """
    count = (len(ids) - 1) // length
    if count < 1:
        raise TextError(f"{len(ids)} characters hold no window of {length}: {length + 1} are needed")
    inputs = ids[: count * length].reshape(count, length).T
    targets = ids[1 : count * length + 1].reshape(count, length).T
    total = 0.0
    for start in range(0, count, STREAMS):
        rows = slice(start, start + STREAMS)
        logits, _ = network.forward(inputs[:, rows], network.zero_state(inputs[:, rows].shape[1]))
        total += float(character_losses(logits, targets[:, rows]).sum(dtype=np.float64))
    return total / (count * length)
