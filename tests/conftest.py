"""A store with two small finished runs, the application over it, and the real server process."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import hypothesis
import pytest
import uvicorn

from app.settings import Settings
from app.store.run_store import RunStore
from app.training.trainer import train_run
from tests.support.browser import browser, opened  # noqa: F401 - fixtures
from tests.support.runs import LONGEST_WAIT, classic_like, gru_like, small_text, wait_until

# no test asserts a time, and a machine at work on something else is slow
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session")
def trained_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, `classic` and then `gru`; not to be changed."""
    store = RunStore(tmp_path_factory.mktemp("trained") / "checkpoints")
    for name, config in (("classic", classic_like()), ("gru", gru_like())):
        train_run(store.create(name, config, small_text(), "small.txt"), lambda: False)
    return store.root


@pytest.fixture
def trained(trained_root: Path, tmp_path: Path) -> RunStore:
    """A copy of the two runs, for tests that change it."""
    shutil.copytree(trained_root, tmp_path / "checkpoints")
    return RunStore(tmp_path / "checkpoints")


@contextlib.contextmanager
def application(root: Path, **changes: object) -> Iterator[httpx.Client]:
    """The application over a store, in a thread of this process: quick to notice new checkpoints."""
    # here, so that the model's tests do not wait for it
    from app.api.shedding import Shedding
    from app.main import create_app
    from app.server.protocol import bounded_http

    quick = {"poll_seconds": 0.02, "access_log": False} | changes
    settings = Settings(store=root, corpus=root / "none.txt", **quick)
    app, http = create_app(settings), bounded_http(settings.read_seconds)
    http.door = Shedding.of(app.state.services)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_config=None, http=http, ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive(), "the application starts")
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=url, timeout=LONGEST_WAIT) as client:
                client.app = app  # type: ignore[attr-defined]
                yield client
        finally:
            server.should_exit = True
            thread.join(LONGEST_WAIT)
            assert not thread.is_alive(), "the application did not stop"


@pytest.fixture(scope="session")
def client(trained_root: Path) -> Iterator[httpx.Client]:
    """The application over the two finished runs; not for tests that change them."""
    with application(trained_root) as client:
        yield client


@pytest.fixture
def serving() -> Iterator[Callable[..., httpx.Client]]:
    """Makes applications of their own: `serving(root, max_prompt=3)`."""
    with contextlib.ExitStack() as stack:
        yield lambda root, **changes: stack.enter_context(application(root, **changes))


@contextlib.contextmanager
def server_process(root: Path, at: int = 0, **settings: object) -> Iterator[httpx.Client]:
    """The real server over the store at `root`, without a worker; stopped at the end of the block.

    `at` is its port, 0 any free one.
    """
    with socket.create_server(("127.0.0.1", at)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {f"CHARLOOM_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-P", "-m", "app.cli", "serve", "--no-worker", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--store", str(root)], env=environment, cwd=root.parent, stderr=subprocess.DEVNULL
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LONGEST_WAIT) as client:

        def answers() -> bool:
            assert process.poll() is None, "the server ended"
            with contextlib.suppress(httpx.TransportError):
                return client.get("/healthz").status_code == 200
            return False

        try:
            wait_until(answers, "the server answers")
            client.process = process  # type: ignore[attr-defined]
            yield client
        finally:
            process.terminate()
            try:
                process.wait(LONGEST_WAIT)
            finally:
                process.kill()
