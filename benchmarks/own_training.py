"""The text that the benchmarks train on, and Charloom's training on it. Does not import the peers."""

import numpy as np

from app.training.processes import running_passes
from model.training import Training
from model.vocabulary import Vocabulary

CHARACTERS = 65


def random_text(length=300_000):
    """A vocabulary of 65 characters, and random ids; the content makes no difference to the speed."""
    rng = np.random.default_rng(0)
    vocabulary = Vocabulary("".join(chr(ord("0") + i) for i in range(CHARACTERS)))
    return vocabulary, rng.integers(0, CHARACTERS, length).astype(np.int32)


def ours(config, text):
    """(update, close) of a training as in the worker, with its helper processes."""
    training = Training(config, *text)
    context = running_passes(training.members, config)
    training.passes = context.__enter__()
    return training.update, lambda: context.__exit__(None, None, None)
