import numpy as np
import pytest

from app.store.capacity import Capacity
from app.training.processes import ParallelPasses, running_passes
from model.checkpoint import encode
from model.config import RunConfig
from model.passes import SerialPasses, shard_rows
from model.training import Training, train
from model.vocabulary import Vocabulary

TEXT = "the cat sat on the mat; the dog sat on the log. " * 60
VOCABULARY = Vocabulary.from_text(TEXT)
CONFIG = RunConfig(
    hidden=8,
    sequence_length=8,
    streams=5,
    shards=3,
    steps=20,
    validate_every=10,
    sample_every=0,
    record_every=5,
)


def start(config: RunConfig) -> Training:
    return Training(config, VOCABULARY, VOCABULARY.encode(TEXT), clock=lambda: 0.0)


@pytest.mark.parametrize(("streams", "shards"), [(1, 1), (5, 3), (32, 2), (2, 64)])
def test_every_row_is_in_exactly_one_shard(streams, shards):
    rows = shard_rows(RunConfig(streams=streams, shards=shards))
    assert [row for part in rows for row in range(part.start, part.stop)] == list(range(streams))
    assert len(rows) == min(streams, shards)
    assert all(part.stop > part.start for part in rows)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_gradients_of_shards_add_up_to_the_batch_gradient(reduction, cell):
    config = CONFIG.replace(cell=cell, reduction=reduction, layers=2)
    training = start(config)
    network = training.network.astype(np.float64)
    window = training.batches.window(3)
    results = []
    for shards in (1, 3):
        state = network.zero_state(5) + 0.1
        passes = SerialPasses([network], config.replace(shards=shards))
        results.append((passes.run(window, state), passes.gradients[0], state))
    for one, three in zip(*results, strict=True):
        np.testing.assert_allclose(three, one, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_in_processes_equals_sequential_training(optimizer):
    config = CONFIG.replace(optimizer=optimizer)
    expected = start(config)
    events = list(train(expected))
    training = start(config)
    with running_passes(training.members, training.config) as passes:
        assert isinstance(passes, ParallelPasses)
        training.passes = passes
        assert list(train(training)) == events
    assert encode(training.checkpoint()) == encode(expected.checkpoint())


@pytest.mark.slow
@pytest.mark.parametrize(("members", "shards", "streams"), [(3, 5, 5), (16, 64, 64)])
def test_parts_beyond_the_number_of_cores_share_processes(monkeypatch, members, shards, streams):
    monkeypatch.setattr("app.training.processes.of_this_process", lambda: Capacity(memory=1 << 30, cores=1))
    config = CONFIG.replace(members=members, shards=shards, streams=streams, sequence_length=4, steps=3)
    expected = start(config)
    events = list(train(expected))
    training = start(config)
    with running_passes(training.members, config) as passes:
        assert isinstance(passes, ParallelPasses)
        assert len(passes._helpers) == 3  # four processes with this one
        training.passes = passes
        assert list(train(training)) == events
    assert encode(training.checkpoint()) == encode(expected.checkpoint())


def test_single_shard_starts_no_helper_process():
    training = start(CONFIG.replace(shards=1))
    with running_passes(training.members, training.config) as passes:
        assert isinstance(passes, SerialPasses)


def test_helper_processes_end_with_the_context():
    training = start(CONFIG)
    with running_passes(training.members, training.config) as passes:
        helpers = list(passes._helpers)
        assert len(helpers) == 2
        assert [helper.poll() for helper in helpers] == [None, None]
    assert [helper.returncode for helper in helpers] == [0, 0]


def test_helper_process_that_dies_is_reported():
    training = start(CONFIG)
    with running_passes(training.members, training.config) as passes:
        passes._helpers[0].kill()
        passes._helpers[0].wait()
        with pytest.raises(OSError, match=r"helper ended with code -9|Broken pipe"):
            passes.run(training.batches.window(0), training.state)
