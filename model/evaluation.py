"""Losses on a text the network was not trained on, in nats per character."""

from __future__ import annotations

import numpy as np

from model.batches import Batches, Ids
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
