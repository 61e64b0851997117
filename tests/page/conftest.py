"""A store of its own for the page: a copied link keeps a checkpoint, which changes the store."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

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
