"""A separate store for the page: copying a link keeps a checkpoint, which changes the store."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.store.run_store import RunStore
from tests.support.runs import gru_like, small_text
from tests.support.servers import application


@pytest.fixture(scope="session")
def trained_root(trained_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page") / "checkpoints"
    shutil.copytree(trained_root, root)
    return root


@pytest.fixture(scope="session")
def client(trained_root: Path) -> Iterator[httpx.Client]:
    with application(trained_root) as client:
        yield client


@pytest.fixture
def growing(tmp_path: Path) -> RunStore:
    """A store with a run that takes longer than any test."""
    store = RunStore(tmp_path / "checkpoints")
    store.create("growing", gru_like(steps=1_000_000, checkpoint_every=500), small_text(), "small.txt")
    return store
