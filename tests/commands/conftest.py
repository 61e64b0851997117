"""A command configures logging for its process; the next test must not inherit that."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def own_log_handlers() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
