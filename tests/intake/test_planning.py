"""What is chosen for a text, a time and a machine."""

import pytest

from app.intake.expectations import make_plan, relative_loss
from app.intake.planning import MEMBERS, PLANNED, rounded, sizes
from tests.support.runs import small_text

SPEED = 45_000.0


def plan_for(text, minutes=3.0, cores=2, measured=None, **asked):
    def speed_of(config, vocabulary, ids):
        if measured is not None:
            measured.append(config)
        return SPEED * min(1, cores / config.members)

    return make_plan(text, {"minutes": minutes} | asked, cores, speed_of)


def test_three_minutes_on_two_cores_and_a_megabyte_are_three_networks():
    assert sizes(1_000_000, 180 * SPEED, 2) == {
        "hidden": 256,
        "members": 3,
        "shards": 1,
        "weight_decay": 0.16,
    }
    assert sizes(1_000_000, 110 * SPEED, 2)["members"] == 2
    assert sizes(5_000_000, 180 * SPEED, 2)["members"] == 2


def test_a_short_text_gets_more_networks_and_smaller_weights():
    chosen = sizes(50_000, 180 * SPEED, 2)
    assert chosen["members"] == MEMBERS
    assert chosen["weight_decay"] == 1.0


def test_little_time_gets_a_single_smaller_network_on_all_cores():
    assert sizes(1_000_000, 1e5, 2) == {"hidden": 128, "members": 1, "shards": 2}
    assert sizes(1_000_000, 1e4, 2)["hidden"] == 64
    assert sizes(1_000_000, 1e7, 1) == {"hidden": 256, "members": 1, "shards": 1}


def test_every_core_has_a_network():
    assert sizes(1_000_000, 1e6, 4)["members"] == 4
    assert sizes(1_000_000, 1e6, 64)["members"] == MEMBERS


def test_a_plan_can_be_trained_and_says_what_to_expect():
    plan = plan_for(small_text(50_000), seed=7)
    config = plan.config
    assert (config.preset, config.minutes, config.seed) == (PLANNED, 3.0, 7)
    assert config.streams == 32
    assert config.members == MEMBERS
    assert plan.passes == pytest.approx(180 * SPEED * 2 / MEMBERS / 45_000)
    assert 10 <= config.validate_every < config.checkpoint_every < config.sample_every
    text = " ".join(plan.described())
    assert f"{config.members} networks side by side, each of 256 GRU units" in text
    assert f"reaches {plan.ngram_loss:.2f} nats" in text
    assert f"expect about {plan.expected_loss:.2f}" in text


@pytest.mark.parametrize(
    ("asked", "members", "passes"),
    [({}, MEMBERS, 2 / MEMBERS), ({"seed": 3, "members": 3}, 3, 2 / 3), ({"members": 1}, 1, 1)],
)
def test_more_networks_than_cores_share_the_speed_that_was_measured(asked, members, passes):
    measured = []
    plan = plan_for(small_text(50_000), measured=measured, **asked)
    assert [config.members for config in measured] == [2]
    assert plan.config.members == members
    assert plan.passes == pytest.approx(180 * SPEED * passes / 45_000)


@pytest.mark.parametrize("asked", [{"hidden": 40}, {"cell": "lstm"}, {"minutes": 0.01}, {"layers": 2}])
def test_a_network_of_another_size_is_measured_itself(asked):
    measured = []
    plan = plan_for(small_text(50_000), measured=measured, **asked)
    assert len(measured) == 2
    assert measured[1].hidden == plan.config.hidden


def test_what_is_asked_for_stays():
    config = plan_for(small_text(20_000), hidden=40, members=1, cell="lstm", validate_every=30).config
    assert (config.hidden, config.members, config.cell, config.validate_every) == (40, 1, "lstm", 30)


@pytest.mark.parametrize(("length", "streams"), [(800, 1), (2_000, 2), (10_000, 13), (1_000_000, 32)])
def test_streams_are_long_enough_to_carry_a_state(length, streams):
    assert plan_for(small_text(length)).config.streams == streams


def test_of_a_long_text_a_bounded_part_is_held_out():
    assert plan_for(small_text(2_000_000)).config.validation_fraction == 0.05
    assert plan_for(small_text(20_000)).config.validation_fraction == 0.1


def test_more_reading_is_expected_to_give_a_lower_loss():
    losses = [relative_loss(1e6, read) for read in (1e4, 1e5, 1e6, 3e6, 1e9)]
    assert losses == sorted(losses, reverse=True)
    assert relative_loss(4.5e4, 1e6) == relative_loss(4.5e4, 1e8)  # a short text is soon known by heart


@pytest.mark.parametrize(("value", "expected"), [(0.3, 10), (14.0, 10), (99.0, 90), (4321.0, 4000)])
def test_steps_that_people_can_read(value, expected):
    assert rounded(value) == expected
