"""The environment variables that the program reads its settings from."""

import os

import pytest

from app.settings import PREFIX


def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the program's variables from the environment for the duration of the test."""
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
