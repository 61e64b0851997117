import math

import pytest

from model.config import PRESETS, SETTINGS, RunConfig
from model.errors import ConfigError


def test_classic_preset_has_the_settings_of_the_assignment():
    classic = PRESETS["classic"]
    assert (classic.cell, classic.hidden, classic.layers) == ("elman", 100, 1)
    assert (classic.sequence_length, classic.streams, classic.reduction) == (25, 1, "sum")
    assert (classic.initialisation, classic.initial_scale) == ("normal", 0.01)
    assert (classic.optimizer, classic.learning_rate, classic.schedule) == ("adagrad", 0.1, "constant")
    assert (classic.clip, classic.clip_at, classic.smoothing) == ("value", 5.0, 0.999)
    assert (classic.steps, classic.minutes) == (100_000, 0)
    assert (classic.sample_every, classic.sample_length, classic.best_sample_length) == (10_000, 200, 1000)
    assert classic.best_by == "smooth_loss"
    assert classic.validation_fraction == 0


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_unchanged_by_a_json_round_trip(name):
    assert RunConfig.from_dict(PRESETS[name].to_dict()) == PRESETS[name]
    assert PRESETS[name].preset == name


@pytest.mark.parametrize("field", [name for name, known in SETTINGS.items() if known.kind is not str])
def test_setting_out_of_range_is_refused_with_limit_and_value(field):
    low, high = SETTINGS[field].low, SETTINGS[field].high
    assert math.isfinite(low)
    assert math.isfinite(high)
    for value in (low - 1, high + 1):
        with pytest.raises(ConfigError, match=f"{field} must be between .* Given: "):
            RunConfig().replace(**{field: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cell": "gpt"}, "elman, gru, lstm"),
        ({"hidden": "many"}, "must be of type int. Given: 'many'"),
        ({"hidden": 1.5}, "type int"),
        ({"hidden": True}, "type int"),
        ({"learning_rate": float("nan")}, "finite"),
        ({"size": 3}, "is not a field"),
        ({"steps": 0}, "set one of them"),
        ({"validation_fraction": 0}, "needs validation_fraction"),
    ],
)
def test_invalid_run_settings_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig().replace(**change)


def test_text_value_is_converted_to_the_type_of_its_field():
    config = RunConfig().replace(hidden="64", learning_rate="1e-3", cell="lstm")
    assert (config.hidden, config.learning_rate, config.cell) == (64, 0.001, "lstm")
