import logging
from pathlib import Path

import pytest

from app.logs import configure_logging
from app.settings import Settings, load_settings, unknown_variables
from model.errors import ConfigError


def test_environment_is_read_when_settings_are_loaded(monkeypatch):
    monkeypatch.setenv("CHARLOOM_PORT", "9000")
    monkeypatch.setenv("CHARLOOM_STORE", "/tmp/elsewhere")
    settings = load_settings()
    assert (settings.port, settings.store) == (9000, Path("/tmp/elsewhere"))


def test_given_value_overrides_the_environment_and_none_does_not(monkeypatch):
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
def test_invalid_setting_is_named_with_its_limit(monkeypatch, name, value, message):
    monkeypatch.setenv(f"CHARLOOM_{name}", value)
    with pytest.raises(ConfigError, match=message):
        load_settings()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_empty_variable_counts_as_not_set(monkeypatch, name):
    monkeypatch.setenv(f"CHARLOOM_{name.upper()}", "")
    assert load_settings() == Settings()


def test_empty_option_counts_as_not_given():
    assert load_settings(host="") == Settings()


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("CHARLOOM_CHECKPOINTS", "did you mean CHARLOOM_STORE?"),
        ("CHARLOOM_CHEKPOINT", "did you mean CHARLOOM_STORE?"),
        ("CHARLOOM_API_KEYES", "did you mean CHARLOOM_API_KEYS?"),
        ("CHARLOOM_MAX_LENGHT", "did you mean CHARLOOM_MAX_LENGTH?"),
        ("CHARLOOM_QQ", "docs/operations.md lists the settings"),
        ("CHARLOOM_SERVER_PORT", "did you mean CHARLOOM_PORT?"),
        ("charloom_storre", "did you mean CHARLOOM_STORE?"),
        ("CHARLOOM_URLS", "did you mean CHARLOOM_URL?"),
        ("charloom_url", "did you mean CHARLOOM_URL?"),
    ],
)
def test_unknown_variable_is_reported_with_the_nearest_setting(name, advice):
    used = ["HOME", "CHARLOOM_PORT", "charloom_store", "CHARLOOM_API_KEY", "CHARLOOM_URL"]
    [message] = unknown_variables(dict.fromkeys([*used, name], "9000"))
    assert message.startswith(f"{name} is not a setting and is ignored")
    assert advice in message


def test_variables_injected_by_kubernetes_are_ignored(monkeypatch):
    injected = {
        "CHARLOOM_SERVICE_HOST": "10.0.0.1",
        "CHARLOOM_SERVICE_PORT": "8000",
        "CHARLOOM_SERVICE_PORT_HTTP": "8000",
        "CHARLOOM_PORT": "tcp://10.0.0.1:8000",
        "CHARLOOM_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "CHARLOOM_PORT_8000_TCP_PROTO": "tcp",
        "CHARLOOM_PORT_8000_TCP_PORT": "8000",
        "CHARLOOM_PORT_8000_TCP_ADDR": "10.0.0.1",
        "CHARLOOM_TEST_SERVICE_HOST": "10.0.0.2",
        "CHARLOOM_TEST_SERVICE_PORT": "80",
        "CHARLOOM_TEST_PORT": "tcp://10.0.0.2:80",
        "CHARLOOM_TEST_PORT_80_TCP": "tcp://10.0.0.2:80",
    }
    for name, value in injected.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == Settings(port=8000)
    assert unknown_variables(injected) == []


def test_unknown_variable_is_reported_at_startup(monkeypatch, capfd):
    monkeypatch.setenv("CHARLOOM_CHECKPOINTS", "/data")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging(load_settings())
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert "CHARLOOM_CHECKPOINTS is not a setting" in capfd.readouterr().err


def test_every_setting_is_described():
    assert all(field.description for field in Settings.model_fields.values())
