"""Generation: exact texts in any batch, stop strings, log-probabilities."""

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from model.cells import CELLS, Array
from model.decoder import Decoder, Lanes
from model.errors import ConfigError, UnknownCharacterError
from model.generation import PAGE, Batch, generate
from model.loss import log_softmax
from model.row import Row, start_character
from model.sampling import ANY, Sampler, SamplingConfig
from model.single_row import SingleRow
from model.vocabulary import Vocabulary
from tests.support.networks import VOCABULARY, in_blocks, mixed_request, outcome, random_network


@pytest.fixture(autouse=True)
def one_blas_thread() -> Iterator[None]:
    with threadpool_limits(1, "blas"):
        yield


def finish(decoder: Decoder, *rows: Row, block: int = 32) -> Row:
    batch = Batch(decoder)
    for row in rows:
        if row.finish_reason is None:
            batch.join(row)
    while batch.rows:
        batch.advance(block)
    return rows[0]


def alone(decoder: Decoder, request: dict[str, Any]) -> tuple[object, ...]:
    return outcome(finish(decoder, Row(VOCABULARY, **request)))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_decoder_step_equals_the_step_of_the_network(cell, layers):
    decoder, rows = Decoder(random_network(cell, layers), widest=5), 5
    network = decoder.network.astype(np.float64)
    ids = np.random.default_rng(1).integers(len(VOCABULARY), size=(30, rows))
    sampler, state = Sampler(len(VOCABULARY), decoder.lanes, decoder.block), network.zero_state(rows)
    fed = np.zeros(decoder.lanes, np.intp)
    lanes = Lanes(decoder, sampler.logits)
    one_sampler = Sampler(len(VOCABULARY), decoder.lanes, decoder.block)
    one = Lanes(decoder, one_sampler.logits)
    step, step_one = lanes.stepper(decoder.lanes_for(rows)), one.single_row(one_sampler).step
    for line in ids:
        expected, state = network.step(line, state)
        fed[:rows] = line
        step(fed)
        step_one(int(line[0]))
        np.testing.assert_allclose(lanes.logits[:rows], expected, atol=1e-5)
        np.testing.assert_allclose(lanes.states[:, :, :rows], state, atol=1e-5)
        state = lanes.states[:, :, :rows].astype(np.float64)  # otherwise rounding errors would accumulate
        np.testing.assert_array_equal(one.logits[0], lanes.logits[0])


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("laid_out", [lambda decoder: decoder, in_blocks], ids=["as found", "in blocks"])
def test_row_writes_the_same_bytes_in_any_batch(cell, laid_out):
    """Whether alone or with others that join and leave at any time, in blocks of any length."""
    decoder = laid_out(Decoder(random_network(cell, layers=2), widest=16))
    requests = [mixed_request(number, longest=PAGE + 60) for number in range(60)]
    expected = [alone(decoder, request) for request in requests]
    for seed in range(3):
        rng, batch = random.Random(seed), Batch(decoder)
        rows = [Row(VOCABULARY, **request) for request in requests]
        waiting = [row for row in rows if row.finish_reason is None]
        rng.shuffle(waiting)
        while waiting or batch.rows:
            for _ in range(min(batch.free, len(waiting), rng.randrange(5))):
                batch.join(waiting.pop())
            ended = batch.advance(rng.choice([1, 2, 7, 32, 1000]))
            assert all(row.finish_reason for row in ended)
        assert [outcome(row) for row in rows] == expected


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 3, 64, 1000])
def test_block_size_does_not_change_the_text(block):
    decoder = Decoder(random_network(), widest=4)
    for number in range(25):
        row = Row(VOCABULARY, **mixed_request(number, longest=2 * PAGE + 50))
        neighbour = Row(VOCABULARY, "", 100, seed=5)
        assert outcome(finish(decoder, row, neighbour, block=block)) == alone(
            decoder, mixed_request(number, 2 * PAGE + 50)
        )


def test_steps_are_whole_blocks_if_the_blas_depends_on_width():
    decoder = in_blocks(Decoder(random_network("gru"), widest=8))
    widths = []
    batch = Batch(decoder)
    stepper = batch._lanes.stepper
    batch._lanes.stepper = lambda lanes: widths.append(lanes) or stepper(lanes)
    requests = [mixed_request(number) for number in range(20)]
    rows = [Row(VOCABULARY, **request) for request in requests]
    waiting = [row for row in rows if row.finish_reason is None]
    while waiting or batch.rows:
        if waiting and batch.free:
            batch.join(waiting.pop())
        batch.advance(3)
    assert sorted(widths) == [4, 8]
    assert [outcome(row) for row in rows] == [alone(decoder, request) for request in requests]


@pytest.mark.parametrize(("fault", "block"), [("a width", 8), ("a place", 1), ("one row", 8)])
def test_blas_that_breaks_exactness_is_detected(fault, block, monkeypatch):
    """The decoder then uses the smallest number of rows for a product at which all lanes agree."""
    stepper, single_row = Lanes.stepper, Lanes.single_row

    def spoil(memory: Lanes, lanes: int | slice) -> None:
        memory.logits[lanes] = np.nextafter(memory.logits[lanes], np.float32(9))

    def faulty(memory: Lanes, lanes: int) -> Callable[[Array], None]:
        step, rows = stepper(memory, lanes), memory.decoder.block or lanes  # rows of each product

        def stepped(ids: Array) -> None:
            step(ids)
            if (fault == "a width" and rows == 5) or (fault == "a place" and rows > 3):
                spoil(memory, slice(3, None, rows))

        return stepped

    def faulty_one(memory: Lanes, sampler: Sampler) -> SingleRow:
        row = single_row(memory, sampler)
        step = row.step
        if fault == "one row" and memory.decoder.block == ANY:
            row.step = lambda character: (step(character), spoil(memory, 0))
        return row

    assert Decoder(random_network(), widest=20).block in (ANY, 8)
    monkeypatch.setattr(Lanes, "stepper", faulty)
    monkeypatch.setattr(Lanes, "single_row", faulty_one)
    assert Decoder(random_network(), widest=20).block == block


def test_batch_of_width_one_finishes_its_row():
    network = random_network()
    row = Row(VOCABULARY, "the", 50, seed=1)
    assert len(finish(Decoder(network, widest=1), row).text) == 50


def test_full_batch_refuses_a_row_until_one_leaves():
    batch = Batch(Decoder(random_network(), widest=2))
    rows = [Row(VOCABULARY, "a", 10, seed=seed) for seed in range(3)]
    batch.join(rows[0])
    batch.join(rows[1])
    with pytest.raises(ConfigError, match="at most 2"):
        batch.join(rows[2])
    batch.leave(rows[0])
    batch.join(rows[2])
    assert batch.rows == [rows[2], rows[1]]
    assert batch.free == 0


@pytest.mark.parametrize("company", [0, 1])
def test_row_removed_during_its_prompt_does_not_affect_the_next(company):
    decoder = Decoder(random_network(), widest=2)
    batch, long = Batch(decoder), Row(VOCABULARY, "a" * 50, 10)
    batch.join(long)
    for _ in range(company):
        batch.join(Row(VOCABULARY, "c", 100))
    batch.advance(5)
    batch.leave(long)
    row = Row(VOCABULARY, "b", 60, seed=1)
    batch.join(row)
    while batch.rows:
        batch.advance(5)
    assert row.text == generate(decoder.network, VOCABULARY, "b", 60, seed=1).text


def test_row_moved_during_its_prompt_does_not_affect_the_next():
    decoder = Decoder(random_network(), widest=2)
    batch, first = Batch(decoder), Row(VOCABULARY, "a", 10)
    batch.join(first)
    batch.join(Row(VOCABULARY, "c" * 50, 100))
    batch.advance(5)
    batch.leave(first)
    batch.advance(5)
    row = Row(VOCABULARY, "b", 60, seed=1)
    batch.join(row)
    while batch.rows:
        batch.advance(5)
    assert row.text == generate(decoder.network, VOCABULARY, "b", 60, seed=1).text


def test_only_the_repetition_penalty_counts_the_prompt():
    settings = {"repetition_penalty": 1.4, "frequency_penalty": 0.3, "presence_penalty": 0.2}
    network, prompt = random_network(), "the cat sat on the mat"
    row = Row(VOCABULARY, prompt, 60, SamplingConfig(temperature=0, **settings))
    finish(Decoder(network), row, Row(VOCABULARY, "c", 100))
    text, state, written = list(VOCABULARY.encode(prompt)), network.zero_state(1), []
    for character in text[:-1]:
        _, state = network.step(np.array([character]), state)
    for _ in range(60):
        logits, state = network.step(np.array([text[-1]]), state)
        adjusted = logits[0].astype(float)
        for i in set(text):
            adjusted[i] = adjusted[i] / 1.4 if adjusted[i] > 0 else adjusted[i] * 1.4
        for i in set(written):
            adjusted[i] -= 0.3 * written.count(i) + 0.2
        written.append(int(adjusted.argmax()))
        text.append(written[-1])
    assert row.ids == written


@pytest.mark.parametrize("length", [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
@pytest.mark.parametrize("prompt_length", [1, 2, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE + 3])
def test_text_is_exact_at_every_page_offset(length, prompt_length):
    decoder = Decoder(random_network(hidden=8), widest=2)
    prompt = "the cat sat, " * 50
    row = finish(decoder, Row(VOCABULARY, prompt[:prompt_length], length, seed=1))
    network, state = decoder.network, decoder.network.zero_state(1)
    for character in VOCABULARY.encode(prompt[:prompt_length]):
        logits, state = network.step(np.array([character]), state)
    for uniform, character in zip(row.uniforms, row.ids, strict=True):
        cumulative = np.cumsum(np.exp(log_softmax(logits[0].astype(np.float64))))
        below = cumulative[character - 1] if character else 0
        assert below - 1e-4 <= uniform <= cumulative[character] + 1e-4
        logits, state = network.step(np.array([character]), state)
    assert (len(row.text), row.finish_reason) == (length, "length")


def test_empty_prompt_starts_from_line_feed_or_first_character():
    network = random_network()
    assert generate(network, VOCABULARY, "", 30).text == generate(network, VOCABULARY, "\n", 30).text
    assert start_character(Vocabulary("xyz")) == "x"


def test_prompt_given_as_ids_is_accepted():
    decoder = Decoder(random_network(), widest=2)
    ids = VOCABULARY.encode("the cat").tolist()
    by_ids, by_text = (finish(decoder, Row(VOCABULARY, prompt, 20)) for prompt in (ids, "the cat"))
    assert by_ids.text == by_text.text
    for outside in ([len(VOCABULARY)], [-1]):
        with pytest.raises(ConfigError, match=f"from 0 to {len(VOCABULARY) - 1}"):
            Row(VOCABULARY, outside, 20)


def test_unknown_characters_are_refused_with_their_positions():
    with pytest.raises(UnknownCharacterError) as error:
        generate(random_network(), VOCABULARY, "a b€c€", 5)
    assert error.value.unknown == [(3, "€"), (5, "€")]


@pytest.mark.parametrize(("field", "value"), [("length", -1), ("stop", [""])])
def test_invalid_row_settings_are_refused(field, value):
    with pytest.raises(ConfigError) as error:
        Row(VOCABULARY, "a", **{"length": 5, field: value})
    assert error.value.field == field


def test_seeds_and_choices_give_different_texts():
    decoder = Decoder(random_network(), widest=4)
    texts = {
        finish(decoder, Row(VOCABULARY, "a", 30, seed=seed, choice=choice)).text
        for seed, choice in itertools.product(range(3), range(3))
    }
    assert len(texts) == 9


STOPS = st.lists(st.text("ab ", min_size=1, max_size=4), max_size=3)


@hypothesis.given(STOPS, st.integers(0, 5), st.lists(st.integers(1, 9), min_size=1, max_size=20))
@hypothesis.settings(max_examples=60)
def test_stop_string_ends_the_text_and_is_never_returned(stops, seed, blocks):
    vocabulary = Vocabulary(" ab")
    decoder = Decoder(random_network(hidden=6, vocabulary=vocabulary), widest=2)
    whole = finish(decoder, Row(vocabulary, "a", 60, seed=seed)).text
    row = Row(vocabulary, "a", 60, seed=seed, stop=stops)
    row.watched = True
    batch, sizes, released = Batch(decoder), itertools.cycle(blocks), ""
    batch.join(row)
    while batch.rows:
        batch.advance(next(sizes))
        released += row.release()
        assert whole.startswith(released)
        assert not any(stop in released for stop in stops)
    ends = [(whole.find(stop) + len(stop), whole.find(stop)) for stop in stops if stop in whole]
    assert row.text == released == (whole[: min(ends)[1]] if ends else whole)
    assert row.finish_reason == ("stop" if ends else "length")
    assert vocabulary.decode(row.ids) == row.text


@pytest.mark.parametrize("sizes", [[1] * 6, [6], [3, 3], [5, 1]])
def test_first_complete_stop_string_ends_the_text(sizes):
    row, ids = Row(VOCABULARY, "a", 100, stop=["bcdef", "d"]), VOCABULARY.encode("abcdef")
    for size in sizes:
        if row.finish_reason is None:
            row.accept(ids[:size])
            ids = ids[size:]
    assert (row.text, row.finish_reason) == ("abc", "stop")


def test_only_a_possible_start_of_a_stop_string_is_withheld():
    row = Row(VOCABULARY, "a", 100, stop=["the end", "then"])
    released = []
    for part in ("xx t", "he", " ", "e", "x", "th", "en"):
        row.accept(VOCABULARY.encode(part))
        released.append(row.release())
    assert released == ["xx ", "", "", "", "the ex", "", ""]
    assert (row.text, row.finish_reason) == ("xx the ex", "stop")


def test_withheld_text_is_returned_at_the_end():
    row = Row(VOCABULARY, "a", 4, stop=["the"])
    row.read = 4
    row.accept(VOCABULARY.encode("xxth"))
    assert (row.release(), row.finish_reason) == ("xxth", "length")


@pytest.mark.parametrize("company", [0, 2])
def test_log_probabilities_equal_those_of_the_network(company):
    network = random_network("lstm", layers=2)
    settings = SamplingConfig(temperature=0.5, top_k=3, frequency_penalty=1.0)
    prompt = "the cat sat"
    row = Row(VOCABULARY, prompt, 40, settings, logprobs=3)
    others = [Row(VOCABULARY, "b", 70, seed=seed, logprobs=1) for seed in range(company)]
    finish(Decoder(network), row, *others, block=7)
    text = np.array([*VOCABULARY.encode(prompt), *row.ids])
    logits, _ = network.forward(text[:-1, None], network.zero_state(1))
    expected = log_softmax(logits[:, 0])
    chosen = np.take_along_axis(expected, text[1:, None], axis=1)[:, 0]
    np.testing.assert_allclose([*row.prompt_logprobs, *row.logprobs_of], chosen, atol=1e-4)
    assert (len(row.prompt_logprobs), len(row.logprobs_of)) == (len(prompt) - 1, 40)
    for place, likeliest in zip(expected, row.likeliest(0, row.scored), strict=True):
        ids, values = zip(*likeliest, strict=True)
        np.testing.assert_allclose(values, np.sort(place)[::-1][:3], atol=1e-4)
        np.testing.assert_allclose(place[list(ids)], values, atol=1e-4)


def test_log_probabilities_end_with_the_stop_string():
    decoder = Decoder(random_network(), widest=2)
    for seed in range(20):
        row = finish(decoder, Row(VOCABULARY, "ab", 80, seed=seed, stop=["e"], logprobs=0), block=50)
        assert len(row.logprobs_of) == len(row.ids) == len(row.text)
        assert row.scored == len(row.prompt_logprobs) + len(row.ids)


def test_row_of_length_zero_only_reads_the_prompt():
    network = random_network()
    row = finish(Decoder(network, widest=2), Row(VOCABULARY, "the cat", 0, logprobs=2))
    assert (row.text, row.ids, row.finish_reason) == ("", [], "length")
    assert len(row.prompt_logprobs) == row.scored == len(row.likeliest(0, 6)) == 6
    assert Row(VOCABULARY, "a", 0).finish_reason == "length"


def test_logits_are_kept_for_few_characters_at_a_time(monkeypatch):
    decoder = Decoder(random_network(), widest=2)
    request = {"prompt": "the cat", "length": 50, "logprobs": 2}
    expected = alone(decoder, request)
    monkeypatch.setattr("model.generation.MAX_LOGITS", 3 * len(VOCABULARY))
    batch, row = Batch(decoder), Row(VOCABULARY, **request)
    batch.join(row)
    batch.advance(50)
    assert batch.ticks == 3
    while batch.rows:
        batch.advance(50)
    assert outcome(row) == expected
