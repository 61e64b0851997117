import math
from collections.abc import Callable

import numpy as np
import pytest

from model.batches import Window
from model.cells import Array
from model.checkpoint import Checkpoint, decode, encode
from model.config import PRESETS, RunConfig
from model.errors import CheckpointError, DivergedError, TextError
from model.evaluation import streaming_loss
from model.generation import generate
from model.loss import character_losses
from model.network import Network
from model.reference import elman, loss_and_gradients
from model.sampling import SamplingConfig
from model.training import Training, train
from model.vocabulary import Vocabulary

TEXT = "the cat sat on the mat; the dog sat on the log. " * 60
VOCABULARY = Vocabulary.from_text(TEXT)
IDS = VOCABULARY.encode(TEXT)
SMALL = {"hidden": 8, "steps": 30, "sample_every": 10, "sample_length": 20, "best_sample_length": 25}
CLASSIC = PRESETS["classic"].replace(record_every=5, **SMALL)
GRU = RunConfig(sequence_length=8, streams=4, validate_every=10, record_every=5, **SMALL)


def start(config: RunConfig, clock: Callable[[], float] = lambda: 0.0) -> Training:
    return Training(config, VOCABULARY, IDS, "text", clock)


def resume(checkpoint: Checkpoint) -> Training:
    return Training.resume(decode(encode(checkpoint)), IDS, clock=lambda: 0.0)


@pytest.mark.parametrize("config", [CLASSIC, GRU], ids=["classic", "gru"])
def test_training_yields_step_zero_and_every_update(config):
    events = list(train(start(config)))
    assert [event.step for event in events] == list(range(31))
    assert events[0].loss is None
    assert all(math.isfinite(event.loss) for event in events[1:])
    assert [event.finished for event in events] == [False] * 30 + [True]
    assert [event.step for event in events if event.record] == list(range(0, 31, 5))


def test_samples_are_written_at_intervals_and_from_the_best():
    samples = [sample for event in train(start(CLASSIC)) for sample in event.samples]
    assert [(s.step, s.kind, len(s.text)) for s in samples] == [
        (0, "sample", 20),
        (10, "sample", 20),
        (20, "sample", 20),
        (30, "sample", 20),
        (30, "best", 25),
    ]


def test_sample_is_the_text_of_the_network_at_that_step():
    training = start(GRU)
    event = next(train(training))
    assert (
        event.samples[0].text
        == generate(training.network, VOCABULARY, "", 20, sampling_of(training.config), seed=0).text
    )


def sampling_of(config: RunConfig) -> SamplingConfig:
    return SamplingConfig(temperature=config.sample_temperature)


@pytest.mark.parametrize(
    "config",
    [CLASSIC, GRU, GRU.replace(cell="lstm", layers=2), GRU.replace(optimizer="muon", members=2)],
    ids=["classic", "gru", "lstm", "muon"],
)
@pytest.mark.parametrize("stop", [0, 7, 10, 29])
def test_resume_is_exact_to_the_bit(config, stop):
    whole = start(config)
    expected = list(train(whole))
    first = start(config)
    for event in train(first):
        if event.step == stop:
            break
    second = resume(first.checkpoint())
    rest = list(train(second))
    # a run that stopped at step 0 reports step 0 again
    assert rest == (expected if stop == 0 else expected[stop + 1 :])
    assert second.network.flat.tobytes() == whole.network.flat.tobytes()
    assert encode(second.checkpoint()) == encode(whole.checkpoint())
    assert encode(second.best_checkpoint()) == encode(whole.best_checkpoint())


def test_finished_run_yields_no_more_updates():
    training = start(GRU)
    list(train(training))
    assert list(train(resume(training.checkpoint()))) == []


def test_classic_run_equals_reference_with_adagrad():
    """The assignment's update: the reference's gradients of 25 characters, clipped, and AdaGrad."""
    config = CLASSIC.replace(steps=12, hidden=5)
    training = start(config)
    network = Network(training.network.config, training.network.flat.astype(np.float64))
    p = network.parameters
    memory = {name: np.zeros_like(values) for name, values in p.items()}
    states, smooth, losses = [[np.zeros(5)]], None, []
    for update in range(12):
        x, y = IDS[update * 25 :][:25], IDS[update * 25 + 1 :][:25]
        loss, gradients, states, _ = loss_and_gradients(p, elman, x, y, states)
        for name, value in p.items():
            gradient = np.clip(gradients[name], -5, 5)
            memory[name] += gradient**2
            value -= 0.1 * gradient / np.sqrt(memory[name] + 1e-8)
        smooth = loss if smooth is None else 0.999 * smooth + 0.001 * loss
        losses.append(smooth)
    events = list(train(training))[1:]
    np.testing.assert_allclose([event.summed_smooth_loss for event in events], losses, rtol=1e-4)
    np.testing.assert_allclose(training.network.parameters["layer0.W"], p["layer0.W"], atol=2e-3)


def test_state_is_carried_within_an_epoch_and_then_reset():
    config = CLASSIC.replace(steps=200)
    training = start(config)
    per_epoch = training.batches.windows_per_epoch
    assert per_epoch < 190
    seen = {}
    run = training.passes.run

    def spy(window: Window, state: Array) -> float:
        seen[training.step] = state.copy()
        return run(window, state)

    training.passes.run = spy
    for event in train(training):
        if event.step == per_epoch + 2:
            break
    assert not seen[0].any()
    assert seen[1].any()
    assert not seen[per_epoch].any()
    assert seen[per_epoch + 1].any()


def test_best_model_is_the_one_with_the_lowest_loss():
    training = start(GRU)
    losses = {}
    for event in train(training):
        if event.validation_loss is not None:
            losses[event.step] = event.validation_loss
    assert list(losses) == [0, 10, 20, 30]
    assert training.best_step == min(losses, key=losses.get)
    assert training.best_loss == min(losses.values())
    best = training.best_checkpoint()
    assert best.step == training.best_step
    assert streaming_loss(best.network(), training.held_out) == training.best_loss


def test_best_by_smooth_loss_has_parameters_before_the_update():
    training = start(CLASSIC)
    flats = {}
    smooth = {}
    for event in train(training):
        flats[event.step] = training.network.flat.copy()
        smooth[event.step] = event.smooth_loss
    assert training.best_loss == min(value for value in smooth.values() if value is not None)
    assert training.best.tobytes() == flats[training.best_step].tobytes()
    assert smooth[training.best_step + 1] == training.best_loss


def test_run_limited_by_time_ends_on_time():
    ticks = iter(range(10_000))
    training = start(GRU.replace(minutes=0.5), clock=lambda: float(next(ticks)))
    events = list(train(training))
    assert events[-1].finished
    assert 28 <= events[-1].seconds <= 32
    assert events[-1].learning_rate < events[5].learning_rate


def test_loss_that_is_nan_is_reported():
    training = start(GRU)
    training.network.flat[:] = np.nan
    with pytest.raises(DivergedError, match="at step 0"):
        training.update()


@pytest.mark.slow
def test_network_learns_the_text():
    events = list(train(start(GRU.replace(steps=300, sample_every=0, best_sample_length=0))))
    assert events[-1].validation_loss < 1.0 < events[0].validation_loss


def test_checkpoint_for_serving_cannot_be_resumed():
    with pytest.raises(CheckpointError, match="to resume from"):
        resume(start(GRU).best_checkpoint())


def test_text_too_short_for_training_is_refused():
    with pytest.raises(TextError, match="must have at least"):
        Training(GRU, VOCABULARY, IDS[:30])


@pytest.mark.parametrize("length", [2, 3, 100, 5000])
def test_streaming_loss_is_the_mean_over_characters(length):
    network = start(GRU).network
    ids = np.resize(IDS, length)
    loss = streaming_loss(network, ids)
    if length <= 100:  # one stream: the whole text at once, except an incomplete window at its end
        covered = (length - 1) // min(64, length - 1) * min(64, length - 1)
        logits, _ = network.forward(ids[:covered, None], network.zero_state(1))
        expected = character_losses(logits, ids[1 : covered + 1, None]).mean()
        assert loss == pytest.approx(expected, rel=1e-5)
    assert loss == pytest.approx(math.log(len(VOCABULARY)), rel=0.05)
