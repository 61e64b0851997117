"""Several networks trained side by side, and the network that they are merged into."""

import numpy as np
import pytest

from app.training.processes import running_passes
from model.checkpoint import decode, encode
from model.config import RunConfig
from model.ensemble import member_config, merge, network_config
from model.errors import CheckpointError
from model.network import Network
from model.training import Training, train
from model.vocabulary import Vocabulary
from tests.support.runs import classic_like, gru_like, small_text

TEXT = small_text(3000)
VOCABULARY = Vocabulary.from_text(TEXT)
IDS = VOCABULARY.encode(TEXT)
CELLS = ("elman", "gru", "lstm")


def members_of(config: RunConfig, seed: int = 0) -> list[Network]:
    sizes, rng = member_config(config, len(VOCABULARY)), np.random.default_rng(seed)
    return [Network(sizes, rng.normal(0, 0.5, sizes.size())) for _ in range(config.members)]


def start(config: RunConfig) -> Training:
    return Training(config, VOCABULARY, IDS, clock=lambda: 0.0)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("layers", "embedding", "count"), [(1, 0, 2), (2, 5, 3), (3, 0, 1), (1, 4, 1)])
def test_merged_network_has_the_mean_logits_of_its_members(cell, layers, embedding, count):
    config = gru_like(cell=cell, layers=layers, embedding=embedding, members=count, hidden=7)
    members = members_of(config)
    sizes = network_config(config, len(VOCABULARY))
    together = Network(sizes, np.full(sizes.size(), 9.0))
    merge(members, together)
    inputs = IDS[:60].reshape(3, 20).T
    rng = np.random.default_rng(1)
    state = rng.normal(0, 0.5, together.zero_state(3).shape)
    units = [slice(m * 7, (m + 1) * 7) for m in range(count)]
    apart = [member.forward(inputs, state[..., part])[0] for member, part in zip(members, units, strict=True)]
    logits, _ = together.forward(inputs, state)
    np.testing.assert_allclose(logits, np.mean(apart, axis=0), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("shards", "optimizer"), [(1, "adamw"), (2, "adamw"), (2, "muon")])
def test_each_member_is_trained_independently(shards, optimizer):
    config = gru_like(
        members=2,
        embedding=5,
        steps=12,
        validate_every=0,
        best_by="smooth_loss",
        shards=shards,
        optimizer=optimizer,
    )
    both = start(config)
    first = [member.flat.copy() for member in both.members]
    list(train(both))
    for member, begun in zip(both.members, first, strict=True):
        alone = start(config.replace(members=1))
        alone.parameters[0] = begun
        list(train(alone))
        np.testing.assert_array_equal(alone.members[0].flat, member.flat)
    assert np.abs(both.members[0].flat - both.members[1].flat).max() > 0.1


@pytest.mark.parametrize(
    "changes",
    [{"shards": 1}, {"shards": 2, "cell": "lstm"}, {"shards": 1, "cell": "elman", "optimizer": "muon"}],
)
def test_training_in_processes_equals_sequential_training(changes):
    config = gru_like(members=2, embedding=6, steps=20, **changes)
    expected = start(config)
    events = list(train(expected))
    training = start(config)
    with running_passes(training.members, config) as training.passes:
        assert list(train(training)) == events
    assert encode(training.checkpoint()) == encode(expected.checkpoint())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resumed_ensemble_continues_to_the_bit(optimizer):
    config = gru_like(members=3, embedding=6, steps=30, optimizer=optimizer)
    whole = start(config)
    events = list(train(whole))
    part, checkpoint = start(config), None
    for progress in train(part):
        if progress.step == 17:
            checkpoint = decode(encode(part.checkpoint()))
            break
    resumed = Training.resume(checkpoint, IDS, clock=lambda: 0.0)
    assert list(train(resumed)) == events[18:]
    assert encode(resumed.checkpoint()) == encode(whole.checkpoint())


def test_served_network_is_merged_from_the_current_members():
    training = start(gru_like(members=2, steps=5))
    untrained = training.network.flat.copy()
    training.update()
    trained = training.network.flat
    expected = Network(training.network.config, np.zeros_like(untrained))
    merge(training.members, expected)
    np.testing.assert_array_equal(trained, expected.flat)
    assert np.abs(trained - untrained).max() > 0
    np.testing.assert_array_equal(training.checkpoint().parameters, trained)


def test_ensemble_without_member_weights_cannot_resume():
    checkpoint = start(gru_like(members=2)).checkpoint()
    del checkpoint.tensors["members"]
    served = decode(encode(checkpoint))
    assert served.network().config.hidden == 24
    with pytest.raises(CheckpointError, match="has no tensor members"):
        Training.resume(served, IDS)


def test_run_of_one_member_is_not_an_ensemble():
    training = start(classic_like())
    assert training.network is training.members[0]
    assert "members" not in training.checkpoint().tensors
