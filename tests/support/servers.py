"""The application in a thread, and the real server process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx

from app.settings import Settings
from tests.support.runs import LONGEST_WAIT, wait_until


@contextlib.contextmanager
def application(root: Path, **changes: object) -> Iterator[httpx.Client]:
    """The application over a store, in a thread of this process. It polls often for new checkpoints."""
    # imported here, so that the tests of model/ do not wait for it
    from app.main import build_server

    quick = {"poll_seconds": 0.02, "access_log": False, "grace_seconds": 0} | changes
    settings = Settings(store=root, corpus=root / "none.txt", **quick)
    server = build_server(settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive(), "the application starts")
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=url, timeout=LONGEST_WAIT) as client:
                client.app = server.config.app  # type: ignore[attr-defined]
                yield client
        finally:
            server.should_exit = True
            thread.join(LONGEST_WAIT)
            assert not thread.is_alive(), "the application did not stop"


@contextlib.contextmanager
def server_process(
    root: Path,
    at: int = 0,
    log: Path = Path(os.devnull),
    descriptors: int | None = None,
    **settings: object,
) -> Iterator[httpx.Client]:
    """A real server process over the store at `root`, without a worker; stopped at the end of the block.

    `at` is its port (0: any free port), `log` the file that its log is written to, and `descriptors` the
    maximum number of its open files.
    """
    with socket.create_server(("127.0.0.1", at)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {f"CHARLOOM_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-P", "-m", "app.cli", "serve", "--no-worker", "--port", str(port)]
    if descriptors:
        command = ["/bin/sh", "-c", 'ulimit -n "$0" && exec "$@"', str(descriptors), *command]
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [*command, "--store", str(root)], env=environment, cwd=root.parent, stderr=stderr
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
