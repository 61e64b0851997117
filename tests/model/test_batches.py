import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.batches import Batches, split
from model.errors import TextError

sizes = st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(0, 60))  # T, B, spare characters


@given(sizes)
def test_targets_are_the_inputs_shifted_by_one_character(size):
    steps, streams, spare = size
    ids = np.arange(steps * streams + 1 + spare, dtype=np.int32)
    batches = Batches(ids, steps, streams)
    for update in range(2 * batches.windows_per_epoch):
        window = batches.window(update)
        assert window.inputs.shape == window.targets.shape == (steps, streams)
        np.testing.assert_array_equal(window.targets, window.inputs + 1)


@given(sizes)
def test_stream_continues_where_it_stopped_within_an_epoch(size):
    steps, streams, spare = size
    batches = Batches(np.arange(steps * streams + 1 + spare, dtype=np.int32), steps, streams)
    previous = None
    for update in range(3 * batches.windows_per_epoch):
        window = batches.window(update)
        assert window.reset == (update % batches.windows_per_epoch == 0)
        assert window.epoch == update // batches.windows_per_epoch
        if not window.reset:
            np.testing.assert_array_equal(window.inputs[0], previous.inputs[-1] + 1)
        previous = window


@given(sizes)
def test_each_character_is_an_input_at_most_once_per_epoch(size):
    steps, streams, spare = size
    ids = np.arange(steps * streams + 1 + spare, dtype=np.int32)
    batches = Batches(ids, steps, streams)
    seen = np.concatenate([batches.window(n).inputs.ravel() for n in range(batches.windows_per_epoch)])
    assert len(np.unique(seen)) == len(seen)
    assert len(seen) > len(ids) - 1 - (steps + 1) * streams  # few are left out


def test_one_stream_reads_windows_as_the_assignment_does():
    batches = Batches(np.arange(100, dtype=np.int32), 25, 1)
    assert batches.windows_per_epoch == 3  # 75 inputs; a fourth window would lack its last target
    assert batches.window(1).inputs[:, 0].tolist() == list(range(25, 50))
    assert batches.window(3).inputs[0, 0] == 0


def test_text_too_short_is_refused_with_the_required_length():
    with pytest.raises(TextError, match="at least 26"):
        Batches(np.zeros(25, np.int32), 25, 1)


@given(st.integers(0, 1000), st.floats(0, 0.5))
def test_split_keeps_every_character_in_order(length, fraction):
    ids = np.arange(length, dtype=np.int32)
    training, held_out = split(ids, fraction)
    np.testing.assert_array_equal(np.concatenate([training, held_out]), ids)
    assert len(held_out) == int(length * fraction)
