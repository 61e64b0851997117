"""Measures how fast this machine trains."""

from __future__ import annotations

import time

from app.training.processes import running_passes
from model.batches import Ids
from model.config import RunConfig
from model.training import Training
from model.vocabulary import Vocabulary

SECONDS = 1.5
MIN_UPDATES = 3


def measure(config: RunConfig, vocabulary: Vocabulary, ids: Ids, *, shared: bool = False) -> float:
    """Characters per second with which each network of `config` is trained on this machine.

    If `shared`, another process is training now but will not be when the run is trained; then only the CPU
    time of this process is counted.
    """
    training = Training(config, vocabulary, ids)
    with running_passes(training.members, config) as training.passes:
        for _ in range(MIN_UPDATES):  # warm-up
            training.update()
        start, computed, updates = time.perf_counter(), time.process_time(), 0
        while (seconds := time.perf_counter() - start) < SECONDS or updates < MIN_UPDATES:
            training.update()
            updates += 1
        if shared:
            seconds = min(seconds, time.process_time() - computed)
    return updates * config.streams * config.sequence_length / seconds
