from pathlib import Path

import pytest

from app.settings import Settings, load_settings
from model.errors import ConfigError


def test_the_environment_is_read_when_settings_are_built_and_not_before(monkeypatch):
    monkeypatch.setenv("CHARLOOM_PORT", "9000")
    monkeypatch.setenv("CHARLOOM_STORE", "/tmp/elsewhere")
    settings = load_settings()
    assert (settings.port, settings.store) == (9000, Path("/tmp/elsewhere"))


def test_what_is_given_wins_and_none_is_not_given(monkeypatch):
    monkeypatch.setenv("CHARLOOM_PORT", "9000")
    assert load_settings(port=1, host=None) == Settings(port=1)
    assert load_settings(port=None).port == 9000


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PORT", "x", r"port \(CHARLOOM_PORT\) is not usable: .*integer.* Given: 'x'"),
        ("PORT", "70000", "less than or equal to 65535. Given: '70000'"),
        ("POLL_SECONDS", "5", "less than or equal to 0.5"),
        ("LOG_FORMAT", "xml", "'console' or 'json'"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_its_limit(monkeypatch, name, value, message):
    monkeypatch.setenv(f"CHARLOOM_{name}", value)
    with pytest.raises(ConfigError, match=message):
        load_settings()


def test_every_setting_is_described():
    assert all(field.description for field in Settings.model_fields.values())
