"""How fast this machine trains, measured by training."""

from __future__ import annotations

import time

from app.training.processes import running_passes
from model.batches import Ids
from model.config import RunConfig
from model.training import Training
from model.vocabulary import Vocabulary

SECONDS = 1.5
LEAST_UPDATES = 3


def measure(config: RunConfig, vocabulary: Vocabulary, ids: Ids, *, shared: bool = False) -> float:
    """Characters a second that each network of `config` reads here, on all the cores that it uses.

    `shared`: a worker is training at the same time, but will not be when the network is trained. Then only
    the time counts in which this process computed.
    """
    training = Training(config, vocabulary, ids)
    with running_passes(training.members, config) as training.passes:
        for _ in range(LEAST_UPDATES):  # helpers start, caches fill
            training.update()
        start, computed, updates = time.perf_counter(), time.process_time(), 0
        while (seconds := time.perf_counter() - start) < SECONDS or updates < LEAST_UPDATES:
            training.update()
            updates += 1
        if shared:
            seconds = min(seconds, time.process_time() - computed)
    return updates * config.streams * config.sequence_length / seconds
