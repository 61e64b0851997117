"""Restarts the workers of `charloom serve` when they die, with exponential backoff."""

from __future__ import annotations

import logging
import subprocess
import threading
import time

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before a dead worker is restarted
HEALTHY_SECONDS = 60.0  # after a worker has lived this long, the pause is the first one again
LONGEST_STOP = 5.0

logger = logging.getLogger(__name__)


class Supervisor:
    """Restarts a child process when it dies, with exponential backoff, until `stop` is called."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.command, self.environment = command, environment
        self.process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name="supervisor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Terminate the child, and kill it if it does not exit in time."""
        with self._starting:
            self._stopping.set()
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(LONGEST_STOP)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                self.process.kill()
        self._thread.join()

    def _keep(self) -> None:
        pause = FIRST_PAUSE
        while True:
            with self._starting:
                if self._stopping.is_set():
                    return
                # its own session: Ctrl-C in the terminal must reach only the parent, which stops the child
                self.process = subprocess.Popen(  # noqa: S603 - this very program
                    self.command, env=self.environment, start_new_session=True
                )
            began = time.monotonic()
            code = self.process.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > HEALTHY_SECONDS:
                pause = FIRST_PAUSE
            logger.error("the worker exited with code %d; restarting it in %g s", code, pause)
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
