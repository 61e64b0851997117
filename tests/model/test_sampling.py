"""Sampling against a naive reference, independent of neighbours, lanes and batch widths."""

import math
from collections.abc import Sequence

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from model.cells import Array
from model.decoder import Decoder
from model.errors import ConfigError
from model.sampling import (
    ANY,
    HIGHEST_UNIFORM,
    WIDEST_TRIANGLE,
    Sampler,
    SamplingConfig,
    draw_uniforms,
    random_stream,
)
from model.single_row import SingleRow
from tests.support.networks import random_network

K = 7
LOGITS = st.lists(st.integers(-24, 24).map(lambda n: n / 4), min_size=K, max_size=K)
CONFIGS = st.builds(
    SamplingConfig,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_k=st.sampled_from([-1, 0, 1, 3, K, 1000]),
    top_p=st.sampled_from([0.01, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.1, 1.0]),
    typical_p=st.sampled_from([0.01, 0.23, 0.6, 0.95, 1.0, 1.0]),
    repetition_penalty=st.sampled_from([0.5, 1.0, 1.5]),
    frequency_penalty=st.sampled_from([-1.0, 0.0, 0.5]),
    presence_penalty=st.sampled_from([0.0, 0.75]),
    logit_bias=st.sampled_from([(), ((0, 3.0), (4, -100.0))]),
)


def run(
    logits: ArrayLike,
    settings: Sequence[SamplingConfig],
    uniforms: ArrayLike,
    prompts: Sequence[Sequence[int]] | None = None,
    written: Sequence[int] = (),
    block: int = ANY,
) -> tuple[Array, Array, Array]:
    """Weights, cumulative weights and choices of one step for B rows, after the characters `written`."""
    logits = np.asarray(logits, np.float32)
    rows = len(logits)
    sampler = Sampler(logits.shape[1], rows, block)
    for row, sampling in enumerate(settings):
        sampler.put(row, sampling, np.array(prompts[row] if prompts else [], np.int64))
    sampler.prepare(rows)
    for character in written:
        sampler.count(np.full(rows, character), np.zeros(rows, bool))
    sampler.logits[:] = logits
    sampler.adjust()
    chosen = np.full(rows, -1)
    sampler.picker(rows)(np.asarray(uniforms, np.float32), chosen)
    return sampler.logits, sampler.cumulative, chosen


def adjusted(
    logits: Sequence[float], sampling: SamplingConfig, prompt: Sequence[int], written: Sequence[int]
) -> list[float]:
    """Logits after penalties and bias, computed naively in double precision."""
    logits = list(logits)
    for i in range(K):
        if i in prompt or i in written:
            factor = sampling.repetition_penalty
            logits[i] = logits[i] / factor if logits[i] > 0 else logits[i] * factor
        logits[i] -= sampling.frequency_penalty * written.count(i)
        logits[i] -= sampling.presence_penalty * (i in written)
    for i, bias in sampling.logit_bias:
        logits[i] += bias
    return logits


def probabilities(logits: Sequence[float], sampling: SamplingConfig) -> list[float]:
    """Probabilities after temperature and filters, computed naively."""
    weights = [math.exp((logit - max(logits)) / sampling.temperature) for logit in logits]
    ranked = sorted(range(K), key=lambda i: (-logits[i], i))
    if sampling.top_k > 0:
        ranked = ranked[: sampling.top_k]
    ranked = [i for i in ranked if weights[i] >= sampling.min_p]
    total, reached, kept = sum(weights[i] for i in ranked), 0.0, []
    for i in ranked:
        if not kept or reached < sampling.top_p * total or sampling.top_p == 1:
            kept.append(i)
        reached += weights[i]
    kept = typical(kept, weights, sampling.typical_p)
    total = sum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in range(K)]


def typical(kept: list[int], weights: Sequence[float], typical_p: float) -> list[int]:
    """Of the characters `kept`, the locally typical ones: Meister et al. (2022), equation 6."""
    if typical_p == 1:
        return kept
    total = sum(weights[i] for i in kept)
    surprise = {i: -math.log(weights[i] / total) for i in kept}
    entropy = sum(weights[i] / total * surprise[i] for i in kept)
    distance = {i: abs(surprise[i] - entropy) for i in kept}
    gaps = [abs(distance[i] - distance[j]) for i in kept for j in kept if weights[i] != weights[j]]
    hypothesis.assume(all(gap > 1e-4 for gap in gaps))  # or rounding decides which is more typical
    # `kept` is sorted by likelihood, so of two equally typical characters the likelier comes first
    reached, chosen = 0.0, []
    for i in sorted(kept, key=lambda i: (round(distance[i], 9), kept.index(i))):
        if chosen and reached >= typical_p * total:
            break
        chosen.append(i)
        reached += weights[i]
    return chosen


IDS = st.lists(st.integers(0, K - 1), max_size=4)


@hypothesis.given(LOGITS, CONFIGS, IDS, IDS, st.floats(0, float(HIGHEST_UNIFORM), width=32))
def test_sampler_chooses_like_the_reference(logits, sampling, prompt, written, uniform):
    expected = adjusted(logits, sampling, prompt, written)
    gaps = {abs(x - y) for x in expected for y in expected}
    hypothesis.assume(all(gap == 0 or gap > 1e-4 for gap in gaps))  # or rounding decides which is likelier
    if sampling.temperature == 0:
        chosen = run([logits], [sampling], [0], [prompt], written)[2]
        assert chosen == expected.index(max(expected))
        return
    expected = probabilities(expected, sampling)
    weights, _, (chosen,) = run([logits], [sampling], [uniform], [prompt], written)
    np.testing.assert_allclose(weights[0] / weights[0].sum(), expected, atol=2e-6)
    assert sum(expected[:chosen]) - 1e-5 <= uniform <= sum(expected[: chosen + 1]) + 1e-5
    assert expected[chosen] > 0


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 3}, {0, 1, 2}),
        ({"top_p": 0.49}, {0}),
        ({"top_p": 0.51}, {0, 1}),
        ({"top_p": 0.751}, {0, 1, 2}),
        ({"min_p": 0.5}, {0, 1, 2}),
        ({"min_p": 0.51}, {0}),
        ({"top_k": 2, "top_p": 0.6}, {0}),  # of the characters that top-k keeps, the first alone has 2/3
        ({"top_k": 1, "top_p": 0.01, "min_p": 1.0}, {0}),
        ({"top_p": 0}, {0}),
        ({"top_k": 2, "typical_p": 0.6}, {0}),  # of the characters that top-k keeps, which have 2/3 and 1/3
        ({"top_k": 2, "typical_p": 0.7}, {0, 1}),
    ],
)
def test_filters_keep_the_expected_characters(settings, kept):
    logits = np.log([[0.5, 0.25, 0.25, 1e-9, 1e-9, 1e-9, 1e-9]])
    weights, _, _ = run(logits, [SamplingConfig(**settings)], [0.5])
    assert set(np.flatnonzero(weights[0]).tolist()) == kept


def test_typical_sampling_excludes_an_uninformative_likeliest():
    """0.5 has 0.69 nats where the entropy is 1.41; 0.25 has 1.39 and is the most typical."""
    logits = np.log([[0.5, 0.25, 0.07, 0.07, 0.06, 0.04, 0.01]])
    weights, _, chosen = run(logits, [SamplingConfig(typical_p=0.2)], [0])
    assert np.flatnonzero(weights[0]).tolist() == [1]
    assert chosen.tolist() == [1]


def test_typical_sampling_keeps_greedy_and_equal_characters():
    logits = [[0, 3, 1, 3, 3, 0, 0]]
    assert run(logits, [SamplingConfig(typical_p=0.2, temperature=0)], [0])[2].tolist() == [1]
    weights, _, _ = run([[2.0] * K], [SamplingConfig(typical_p=0.5)], [0.5])
    assert np.flatnonzero(weights[0]).tolist() == [0, 1, 2, 3]


def test_greedy_chooses_the_first_of_equal_maxima():
    logits = [[0, 3, 1, 3, 3, 0, 0], [5, 5, 5, 5, 5, 5, 5], [-80, -90, -70, -70.00001, -90, -90, -90]]
    greedy = SamplingConfig(temperature=0)
    uniforms = draw_uniforms(random_stream(1), greedy, 3)
    assert run(logits, [greedy] * 3, uniforms)[2].tolist() == [1, 0, 2]


def test_lowest_and_highest_uniform_choose_a_kept_character():
    settings = [SamplingConfig(top_k=2)] * 2
    logits = [[-5, 0, 1, -5, -5, -5, -5]] * 2
    assert run(logits, settings, [0, HIGHEST_UNIFORM])[2].tolist() == [1, 2]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampled_frequencies_fit_the_distribution(temperature):
    """Chi-square with K - 1 = 6 degrees of freedom: 22.46 is exceeded once in a thousand samples."""
    logits, rows, times = np.array([1.0, 0.5, 0.0, -0.5, 2.0, 1.5, -1.0]), 64, 400
    sampling = SamplingConfig(temperature=temperature)
    numbers = draw_uniforms(random_stream(3), sampling, rows * times).reshape(times, rows)
    counts = np.zeros(K)
    for uniforms in numbers:
        counts += np.bincount(run([logits] * rows, [sampling] * rows, uniforms)[2], minlength=K)
    expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum() * rows * times
    assert ((counts - expected) ** 2 / expected).sum() < 22.46


@pytest.mark.parametrize("characters", [K, 65, WIDEST_TRIANGLE, WIDEST_TRIANGLE + 1])
def test_choice_does_not_depend_on_neighbours_or_lane(characters):
    rng = np.random.default_rng(0)
    settings = [
        SamplingConfig(),
        SamplingConfig(temperature=0.6, top_p=0.9),
        SamplingConfig(top_k=3, frequency_penalty=0.5),
        SamplingConfig(temperature=0),
        SamplingConfig(typical_p=0.4),
        SamplingConfig(typical_p=0.9, min_p=0.01, temperature=1.2),
        SamplingConfig(top_p=0.8),
        SamplingConfig(),
    ] * 4
    logits, uniforms = rng.normal(0, 3, (32, characters)), rng.random(32) * HIGHEST_UNIFORM
    block = Decoder(random_network()).block
    _, together, chosen = run(logits, settings, uniforms, block=block)
    order = rng.permutation(32)[: 20 if block == ANY else 24]
    _, elsewhere, chosen_elsewhere = run(
        logits[order], [settings[i] for i in order], uniforms[order], block=block
    )
    np.testing.assert_array_equal(elsewhere, together[order])
    np.testing.assert_array_equal(chosen_elsewhere, chosen[order])


@pytest.mark.parametrize("characters", [1, K, 65, WIDEST_TRIANGLE + 1])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_single_row_chooses_like_the_batch(characters, temperature):
    rng = np.random.default_rng(0)
    sampling = SamplingConfig(temperature=temperature)
    sampler = Sampler(characters, 2)
    for row in range(2):
        sampler.put(row, sampling, np.array([0]))
    sampler.prepare(2)
    one, both, chosen = (
        SingleRow([], [((), lambda _: None)], sampler, 2).pick,
        sampler.picker(2),
        np.zeros(2, np.intp),
    )
    for _ in range(200):
        logits, uniform = rng.normal(0, 4, (2, characters)), np.float32(rng.random() * HIGHEST_UNIFORM)
        sampler.logits[:] = logits
        both(np.array([uniform, 0], np.float32), chosen)
        cumulative = sampler.cumulative[0].copy()
        sampler.logits[:] = logits
        assert one(float(uniform)) == chosen[0]
        np.testing.assert_array_equal(sampler.cumulative[0], cumulative)


def test_nan_logits_choose_the_first_character():
    sampler, chosen = Sampler(K, 2), np.full(2, -1)
    one = SingleRow([], [((), lambda u: None)], sampler, 2).pick
    sampler.logits[:] = np.nan
    sampler.picker(2)(np.full(2, 0.5, np.float32), chosen)
    assert chosen.tolist() == [0, 0]
    sampler.logits[:] = np.nan
    assert one(0.5) == 0


def test_moved_row_keeps_its_settings_and_counts():
    sampler = Sampler(K, 3)
    sampler.put(0, SamplingConfig(), np.array([1]))
    sampler.put(2, SamplingConfig(presence_penalty=2.0, temperature=0.0), np.array([1]))
    sampler.prepare(3)
    sampler.count(np.array([4, 4, 4]), np.array([False, False, False]))
    sampler.move(2, 0)
    sampler.prepare(1)
    sampler.logits[0] = [0, 0, 0, 0, 1, 0.5, 0]
    sampler.adjust()
    chosen = np.zeros(1, np.intp)
    sampler.picker(1)(np.zeros(1, np.float32), chosen)
    assert chosen.tolist() == [5]


def test_each_seed_and_choice_has_its_own_random_stream():
    draws = {
        key: tuple(draw_uniforms(random_stream(*key), SamplingConfig(), 4).tolist())
        for key in [(0, 0), (0, 1), (1, 0), (2**63, 0), (2**64 + 1, 0)]
    }
    assert len(set(draws.values())) == len(draws)
    again = draw_uniforms(random_stream(0, 1), SamplingConfig(), 4)
    assert draws[0, 1] == tuple(again.tolist())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", True),
        ("temperature", "1"),
        ("top_k", -2),
        ("top_p", -0.1),
        ("typical_p", 0),
        ("typical_p", 1.1),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("repetition_penalty", 0),
        ("repetition_penalty", 1e-300),
        ("frequency_penalty", 2.5),
        ("presence_penalty", -2.5),
        ("logit_bias", ((0, 101.0),)),
        ("logit_bias", ((0, math.nan),)),
    ],
)
def test_sampling_setting_out_of_range_is_refused_with_the_value(field, value):
    with pytest.raises(ConfigError) as error:
        SamplingConfig(**{field: value})
    assert error.value.field == field
    assert str(value[0][1] if field == "logit_bias" else value) in str(error.value)


@pytest.mark.parametrize("seed", [0, 1, 7, 2**32 - 1, 2**32, 2**40 + 3, 2**63 - 1, 2**64 + 5, -1, -(2**63)])
@pytest.mark.parametrize("choice", [0, 1, 15])
def test_random_stream_equals_the_one_of_numpy(seed: int, choice: int):
    stream = np.random.Generator(np.random.PCG64([seed % 2**64 if seed < 0 else seed, choice]))
    assert np.array_equal(random_stream(seed, choice).integers(2**32, size=8), stream.integers(2**32, size=8))
