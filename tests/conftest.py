"""A store with two small finished runs, and the application over it."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import hypothesis
import pytest

from app.store.run_store import RunStore
from app.training.trainer import train_run
from tests.support.browser import browser, opened  # noqa: F401 - fixtures
from tests.support.runs import classic_like, gru_like, small_text
from tests.support.servers import application

# no deadline for an example: no property is about time, and a busy machine is slow
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session")
def trained_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, `classic` and then `gru`; tests must not change them."""
    store = RunStore(tmp_path_factory.mktemp("trained") / "checkpoints")
    for name, config in (("classic", classic_like()), ("gru", gru_like())):
        train_run(store.create(name, config, small_text(), "small.txt"), lambda: False)
    return store.root


@pytest.fixture
def trained(trained_root: Path, tmp_path: Path) -> RunStore:
    """A copy of the two runs, for tests that change the store."""
    shutil.copytree(trained_root, tmp_path / "checkpoints")
    return RunStore(tmp_path / "checkpoints")


@pytest.fixture(scope="session")
def client(trained_root: Path) -> Iterator[httpx.Client]:
    """The application over the two finished runs; not for tests that change the store."""
    with application(trained_root) as client:
        yield client


@pytest.fixture
def serving() -> Iterator[Callable[..., httpx.Client]]:
    """Starts further applications: `serving(root, max_prompt=3)`."""
    with contextlib.ExitStack() as stack:
        yield lambda root, **changes: stack.enter_context(application(root, **changes))
