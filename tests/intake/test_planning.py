"""The settings that are chosen for a text, a training time and a machine."""

import itertools
import random
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.intake.expectations import Plan, Queue, expected_loss, loss_range, make_plan, queue_of
from app.intake.planning import MEMBERS, PLANNED, expected_seconds, expected_speed, rounded, sizes
from app.store.records import Control, Status
from app.store.run_store import RunStore
from app.training.speed import measure
from model.config import DEFAULT_PRESET, PRESETS, RunConfig
from model.vocabulary import Vocabulary
from tests.support.runs import gru_like, small_text

SPEED = 45_000.0


def plan_for(
    text: str, minutes: float = 3.0, cores: int = 2, measured: list[RunConfig] | None = None, **asked: Any
) -> Plan:
    def speed_of(config: RunConfig, vocabulary: Vocabulary, ids: object) -> float:
        if measured is not None:
            measured.append(config)
        return SPEED * min(1, cores / config.members)

    return make_plan(text, {"minutes": minutes} | asked, cores, speed_of)


def test_plan_for_a_megabyte_on_two_cores_has_three_networks():
    assert sizes(1_000_000, 180 * SPEED, 2) == {"hidden": 256, "members": 3, "shards": 1}
    assert sizes(1_000_000, 110 * SPEED, 2)["members"] == 2
    assert sizes(5_000_000, 180 * SPEED, 2)["members"] == 2


def test_short_text_gets_more_networks_and_weight_decay():
    chosen = sizes(50_000, 180 * SPEED, 2)
    assert chosen["members"] == MEMBERS
    assert chosen["weight_decay"] == 1.0


@pytest.mark.parametrize(("characters", "optimizer"), [(100_000, "adamw"), (1_000_000, "muon")])
def test_text_that_is_read_many_times_is_trained_with_adamw(characters, optimizer):
    config = PRESETS[DEFAULT_PRESET].replace(**sizes(characters, 180 * SPEED, 2))
    assert (config.optimizer, config.learning_rate) == (optimizer, {"adamw": 0.006, "muon": 0.01}[optimizer])


def test_short_time_gets_one_smaller_network_on_all_cores():
    assert sizes(1_000_000, 1e5, 2) == {"hidden": 128, "members": 1, "shards": 2}
    assert sizes(1_000_000, 1e4, 2)["hidden"] == 64
    assert sizes(1_000_000, 1e7, 1) == {"hidden": 256, "members": 1, "shards": 1}


def test_plan_has_a_network_for_every_core():
    assert sizes(1_000_000, 1e6, 4)["members"] == 4
    assert sizes(1_000_000, 1e6, 64)["members"] == MEMBERS


def test_plan_can_be_trained_and_states_what_to_expect():
    plan = plan_for(small_text(50_000), seed=7)
    config = plan.config
    assert (config.preset, config.minutes, config.seed) == (PLANNED, 3.0, 7)
    assert config.streams == 32
    assert config.members == MEMBERS
    assert plan.passes == pytest.approx(180 * SPEED * 2 / MEMBERS / 45_000)
    assert 10 <= config.validate_every < config.checkpoint_every < config.sample_every
    text = " ".join(plan.described())
    assert f"{config.members} networks side by side, each with 256 GRU units" in text
    assert f"reaches {plan.ngram_loss:.2f} nats" in text
    assert f"expect {plan.expected_loss[0]:.2f} to {plan.expected_loss[1]:.2f}" in text


@pytest.mark.parametrize(
    ("asked", "members", "passes"),
    [({}, MEMBERS, 2 / MEMBERS), ({"seed": 3, "members": 3}, 3, 2 / 3), ({"members": 1}, 1, 1)],
)
def test_more_networks_than_cores_share_the_measured_speed(asked, members, passes):
    measured = []
    plan = plan_for(small_text(50_000), measured=measured, **asked)
    # with AdamW, as the text is read many times
    assert [config.members for config in measured] == [2, members]
    assert plan.config.members == members
    assert plan.passes == pytest.approx(180 * SPEED * passes / 45_000)


@pytest.mark.parametrize("asked", [{"hidden": 40}, {"cell": "lstm"}, {"minutes": 0.01}, {"layers": 2}])
def test_network_of_another_size_is_measured_separately(asked):
    measured = []
    plan = plan_for(small_text(50_000), measured=measured, **asked)
    assert len(measured) == 2
    assert measured[1].hidden == plan.config.hidden


def test_requested_settings_are_kept_in_the_plan():
    config = plan_for(small_text(20_000), hidden=40, members=1, cell="lstm", validate_every=30).config
    assert (config.hidden, config.members, config.cell, config.validate_every) == (40, 1, "lstm", 30)


@pytest.mark.slow
@pytest.mark.parametrize(("length", "streams"), [(800, 1), (2_000, 2), (10_000, 13), (1_000_000, 32)])
def test_planned_streams_are_long_enough_to_carry_a_state(length, streams):
    assert plan_for(small_text(length)).config.streams == streams


@pytest.mark.slow
def test_held_out_part_of_a_long_text_is_smaller():
    assert plan_for(small_text(2_000_000)).config.validation_fraction == 0.05
    assert plan_for(small_text(20_000)).config.validation_fraction == 0.1


def ids_of(text: str) -> tuple[np.ndarray, int]:
    vocabulary = Vocabulary.from_text(text)
    return vocabulary.encode(text), len(vocabulary)


def test_expected_loss_falls_with_the_characters_read():
    ids, characters = ids_of(small_text(50_000))
    ranges = [loss_range(ids, 45_000, characters, read) for read in (1e4, 1e5, 5e5)]
    assert ranges == sorted(ranges, reverse=True)
    assert all(low < high for low, high in ranges)
    often, oftener = (loss_range(ids, 45_000, characters, read) for read in (1e6, 1e8))
    assert often == oftener  # a short text is memorised by then


def regular_text(length: int) -> str:
    """Sentences of random words: very regular without being a repetition."""
    rng = random.Random(1)
    words = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "who", "but", "home"]
    words += ["see", "there", "was", "nobody", "came", "to", "and"]
    sentences, size = [], 0
    while size < length:
        chosen = " ".join(rng.choice(words) for _ in range(rng.randint(3, 8)))
        sentences.append(chosen.capitalize() + rng.choice(".!?") + "\n")
        size += len(sentences[-1])
    return "".join(sentences)[:length]


# the best held-out loss that one GRU reached on it, by the number of characters read
REACHED = {1e5: 0.8589, 3e5: 0.8001, 9e5: 0.7955, 2.7e6: 0.7956}


@pytest.mark.parametrize("read", REACHED)
def test_loss_reached_on_a_regular_text_is_in_the_expected_range(read):
    ids, characters = ids_of(regular_text(200_000))
    low, high = loss_range(ids, 180_000, characters, read)
    assert low <= REACHED[read] <= high
    assert high / low < 1.25


def test_expected_loss_of_an_upload_is_the_range_of_its_beginning():
    text = regular_text(20_000)
    ids, characters = ids_of(text)
    config = PRESETS["gru"].replace(steps=200)
    expected = loss_range(ids, 18_000, characters, 200 * 64 * 32, 180_000)
    assert expected_loss(text, 200_000, config, characters) == expected
    # a text that is shorter as a whole is memorised sooner
    assert loss_range(ids, 18_000, characters, 200 * 64 * 32) > expected


def test_plan_with_a_busy_worker_includes_the_queue(tmp_path):
    store = RunStore(tmp_path / "store")
    timed = PRESETS["gru"].replace(minutes=2.0)
    for name, status in {
        "running": Status(state="training", heartbeat=time.time(), expected_end=time.time() + 90),
        "queued": Status(state="queued"),
        "half": Status(state="training", fraction=0.5),
        "retried": Status(state="paused", retry_at=time.time() + 5),
        "paused": Status(state="paused"),
        "finished": Status(state="finished"),
        "failed": Status(state="failed"),
    }.items():
        store.create(name, timed, small_text(), "small.txt").write_status(status)
    store.get("queued").write_control(Control(priority=-1))
    queue = queue_of(store)
    assert queue.runs == 3
    assert queue.seconds == pytest.approx(90 + 60 + 120, abs=5)
    store.get("queued").write_control(Control(priority=1))
    assert queue_of(store).runs == 4
    plan = make_plan(small_text(50_000), {"minutes": 3}, 2, lambda *_: SPEED, Queue(4, 390.0))
    assert plan.ends_at == pytest.approx(time.time() + 390 + 180, abs=5)
    text = " ".join(plan.described())
    assert "The worker of this store first trains 4 other runs for about 6.5 minutes." in text


def test_muon_is_expected_to_be_a_fifth_slower():
    speeds = [expected_speed(PRESETS[name], 80) for name in ("gru-pair-muon", "gru-pair")]
    assert 0.75 < speeds[0] / speeds[1] < 0.85  # measured: 0.79 to 0.81


def test_queue_time_follows_the_measured_speed(tmp_path):
    store = RunStore(tmp_path / "store")
    config = PRESETS["gru"].replace(steps=1000, minutes=0.0)
    speed = expected_speed(config, 80)
    training = Status(
        state="training",
        heartbeat=time.time(),
        expected_end=time.time() + 30,
        characters_per_second=speed / 4,
    )
    store.create("first", config, small_text(), "small.txt").write_status(training)
    store.create("second", config, small_text(), "small.txt")
    store.create("third", config.replace(minutes=1.0), small_text(), "small.txt")
    queue = queue_of(store)
    assert queue.seconds == pytest.approx(30 + 4 * expected_seconds(config, 80) + 60, rel=0.05)


def test_speed_next_to_a_worker_is_measured_in_processor_time(monkeypatch):
    wall, own = itertools.count(step=0.5), itertools.count(step=0.1)
    clock = SimpleNamespace(perf_counter=lambda: next(wall), process_time=lambda: next(own))
    monkeypatch.setattr("app.training.speed.time", clock)
    config, text = gru_like(), small_text()
    vocabulary = Vocabulary.from_text(text)
    speeds = [measure(config, vocabulary, vocabulary.encode(text), shared=shared) for shared in (False, True)]
    read = config.streams * config.sequence_length
    assert speeds == pytest.approx([3 * read / 2.0, 3 * read / 0.1])


@pytest.mark.parametrize(("value", "expected"), [(0.3, 10), (14.0, 10), (99.0, 90), (4321.0, 4000)])
def test_steps_are_rounded_to_readable_numbers(value, expected):
    assert rounded(value) == expected


@pytest.mark.parametrize(("queued", "start"), [(390.0, 1390.0), (5.0, None)])
def test_planning_time_is_not_added_to_the_queue(monkeypatch, queued, start):
    now = 1000.0
    monkeypatch.setattr("app.intake.expectations.time", SimpleNamespace(time=lambda: now))

    def measured(*_: object) -> float:
        nonlocal now
        now += 20
        return SPEED

    plan = make_plan(small_text(50_000), {"minutes": 3}, 2, measured, Queue(1, queued))
    assert plan.ends_at == (start or now) + 180
