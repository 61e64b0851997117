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


def measure(config: RunConfig, vocabulary: Vocabulary, ids: Ids) -> float:
    """Characters a second that each network of `config` reads here, on all the cores that it uses."""
    training = Training(config, vocabulary, ids)
    with running_passes(training.members, config) as training.passes:
        for _ in range(LEAST_UPDATES):  # helpers start, caches fill
            training.update()
        start, updates = time.perf_counter(), 0
        while (seconds := time.perf_counter() - start) < SECONDS or updates < LEAST_UPDATES:
            training.update()
            updates += 1
    return updates * config.streams * config.sequence_length / seconds
