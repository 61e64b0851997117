"""What is trained in the benchmarks, and how Charloom trains it. Imports no peer."""

import numpy as np

from app.training.processes import running_passes
from model.training import Training
from model.vocabulary import Vocabulary

CHARACTERS = 65


def random_text(length=300_000):
    """A vocabulary of 65 characters and ids; what they are makes no difference to speed."""
    rng = np.random.default_rng(0)
    vocabulary = Vocabulary("".join(chr(ord("0") + i) for i in range(CHARACTERS)))
    return vocabulary, rng.integers(0, CHARACTERS, length).astype(np.int32)


def ours(config, text):
    """(update, close) of a training as the worker runs it, helper processes included."""
    training = Training(config, *text)
    context = running_passes(training.members, config)
    training.passes = context.__enter__()
    return training.update, lambda: context.__exit__(None, None, None)
