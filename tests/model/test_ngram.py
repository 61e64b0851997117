"""n-grams with Witten-Bell smoothing against a direct implementation, and baselines made of them."""

import math
import random
from collections import Counter

import numpy as np
import pytest

from model.ngram import baselines, ngram_losses


def by_brute_force(ids: list[int], trained: int, characters: int, order: int) -> float:
    """The mean loss by the definition, one character at a time."""
    counts: Counter[tuple[int, ...]] = Counter()
    for length in range(1, order + 1):
        counts.update(tuple(ids[i : i + length]) for i in range(trained - length + 1))

    def p(character: int, context: tuple[int, ...]) -> float:
        lower = p(character, context[1:]) if context else 1 / characters
        after = [counts[(*context, c)] for c in range(characters)]
        occurrences, different = sum(after), sum(count > 0 for count in after)
        if not occurrences:
            return lower
        return (counts[(*context, character)] + different * lower) / (occurrences + different)

    losses = [-math.log(p(ids[i], tuple(ids[max(0, i - order + 1) : i]))) for i in range(trained, len(ids))]
    return sum(losses) / len(losses)


@pytest.mark.parametrize(
    ("characters", "length", "trained"), [(3, 60, 40), (5, 200, 100), (40, 90, 2), (2, 9, 8)]
)
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_ngram_losses_equal_the_definition(characters, length, trained, order):
    rng = random.Random(length)
    ids = [rng.randrange(characters) for _ in range(length)]
    losses = ngram_losses(np.array(ids, np.int32), trained, characters, order)
    assert losses[-1] == pytest.approx(by_brute_force(ids, trained, characters, order), rel=1e-12)


def test_ngram_probabilities_sum_to_one():
    ids = [0, 1, 2, 0, 1, 1, 2, 0, 0, 2]
    p = [math.exp(-ngram_losses(np.array([*ids, last], np.int32), len(ids), 4, 3)[-1]) for last in range(4)]
    assert sum(p) == pytest.approx(1)


def test_baselines_reach_the_known_losses_of_simple_texts():
    ids = np.tile(np.arange(6, dtype=np.int32), 500)
    found = baselines(ids, 6, 0.1)
    assert found["uniform"] == pytest.approx(math.log(6))
    assert found["unigram"] == pytest.approx(math.log(6), rel=1e-3)
    assert found["5-gram"] < 0.01
    assert baselines(ids, 6, 0.0) == found
    unlike = np.concatenate((np.zeros(90, np.int32), np.ones(10, np.int32)))
    assert baselines(unlike, 2, 0.1)["5-gram"] > math.log(2)


def test_ngrams_of_a_large_vocabulary_do_not_overflow():
    ids = np.random.default_rng(0).integers(0, 100_000, 5000).astype(np.int32)
    assert math.isfinite(baselines(ids, 100_000, 0.1)["5-gram"])


def test_baselines_of_a_long_text_are_those_of_its_end(monkeypatch):
    monkeypatch.setattr("model.ngram.MAX_COUNTED", 1000)
    ids = np.random.default_rng(0).integers(0, 7, 5000).astype(np.int32)
    assert baselines(ids, 7, 0.04) == baselines(ids[-1000:], 7, 0.2)
    assert baselines(ids, 7, 0.5) == baselines(ids[-1000:], 7, 0.5)
