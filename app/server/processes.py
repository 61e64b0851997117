"""Several server processes on one port, kept running by uvicorn's own supervisor.

Each has its own event loop and engine. Their parent serves nothing: it replaces a process that exits or whose
event loop hangs, and stops them all at a signal.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import wait

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import SIGNALS, Multiprocess, Process

from app.logs import configure_logging
from app.server.process import Server, handles
from app.server.shared import Shared
from app.settings import Settings
from app.signals import on_signals

HANG_SECONDS = 5  # a process whose event loop does not respond for this long is replaced
START_SECONDS = 120.0  # time that a process may take to start serving
LEAVE_SECONDS = 5.0  # time after the grace period before remaining processes are killed
LOOK_SECONDS = 0.1

Build = Callable[[Settings, Shared], Server]  # must be picklable: a module's function

logger = logging.getLogger(__name__)


class ServerProcess(Process):
    """The supervisor's handle of a server process; `target` and what it calls run in that process."""

    def __init__(
        self,
        config: uvicorn.Config,
        sockets: list[socket.socket],
        build: Build,
        settings: Settings,
        shared: Shared,
    ) -> None:
        super().__init__(config, sockets)
        self.build, self.settings, self.shared = build, settings, shared
        self._began, self._serves = time.monotonic(), False

    def is_alive(self, timeout: float = HANG_SECONDS) -> bool:
        """Whether it serves or is still starting; pings it and waits for the reply."""
        if not self.process.is_alive():
            return False
        if not self._serves:
            self._serves = self.parent_conn.poll() and bool(self.parent_conn.recv())
            return self._serves or time.monotonic() - self._began < START_SECONDS
        return self.ping(timeout)

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        os.setsid()  # Ctrl-C must reach only the supervisor, which then stops the processes
        configure_logging(self.settings)
        server = self.build(self.settings, self.shared)
        for work in (self._answer, self._end_with_parent):
            threading.Thread(target=work, args=(server,), daemon=True).start()
        [listener] = sockets or []
        server.run(handles(listener))
        if os.getppid() != multiprocessing.parent_process().pid:  # type: ignore[union-attr]
            shutil.rmtree(self.shared.folder, ignore_errors=True)  # the supervisor was killed

    def _answer(self, server: Server) -> None:
        """Report that this process serves, then reply to each ping once the event loop has run a callback."""
        server.serving.wait()
        self.child_conn.send(True)
        while True:
            self.child_conn.recv()
            turned = threading.Event()
            with suppress(RuntimeError):  # the loop is closed: the process is exiting
                server.loop.call_soon_threadsafe(turned.set)
            turned.wait()
            self.child_conn.send(True)

    def _end_with_parent(self, server: Server) -> None:
        """Stop as at a signal if the supervisor was killed."""
        multiprocessing.parent_process().join()  # type: ignore[union-attr]
        os.kill(os.getpid(), signal.SIGTERM)


class Processes(Multiprocess):
    """Keeps the server processes running until a signal.

    As with one process, the first signal gives requests in progress the configured grace period, and a second
    one ends them immediately.
    """

    def __init__(
        self,
        build: Build,
        settings: Settings,
        listeners: Sequence[socket.socket],
        shared: Sequence[Shared],
    ) -> None:
        """Must run in the main thread. The processes take one listening socket each."""
        config = uvicorn.Config(
            "", workers=len(shared), log_config=None, timeout_worker_healthcheck=HANG_SECONDS
        )
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        super().__init__(config, list(listeners))
        for number, handler in handlers.items():  # undo uvicorn's handlers: `run` has its own
            signal.signal(number, handler)
        self.build, self.settings, self.shared = build, settings, shared
        self._asked = 0

    def run(self) -> None:
        """Raises SystemExit with uvicorn's STARTUP_FAILURE if a process could not start."""
        with on_signals(self.signal_queue.append):
            super().run()
        if any(process.exitcode == STARTUP_FAILURE for process in self.processes):
            raise SystemExit(STARTUP_FAILURE)

    def init_processes(self) -> None:
        self.processes = [self._started(shared) for shared in self.shared]

    def keep_subprocess_alive(self) -> None:
        for number, process in enumerate(self.processes):
            if self.should_exit.is_set() or process.is_alive(HANG_SECONDS):
                continue
            hung = process.exitcode is None
            process.kill()
            process.join()
            if process.exitcode == STARTUP_FAILURE:  # a new process would fail the same way
                self.should_exit.set()
                return
            reason = f"did not answer for {HANG_SECONDS} s" if hung else f"ended with code {process.exitcode}"
            logger.error("server process %d %s: replacing it", process.pid, reason)
            mark_process_dead(number, self.shared[number].metrics)  # type: ignore[no-untyped-call]
            self.processes[number] = self._started(self.shared[number])

    def _started(self, shared: Shared) -> ServerProcess:
        listener = self.sockets[shared.number]
        process = ServerProcess(self.config, [listener], self.build, self.settings, shared)
        process.start()
        return process

    def handle_int(self) -> None:
        self._asked += 1
        self.should_exit.set()

    handle_term = handle_hup = handle_int

    def join_all(self) -> None:
        """Wait for all processes to exit; kill those that are left after the grace period."""
        latest = time.monotonic() + self.settings.grace_seconds + LEAVE_SECONDS
        again = killed = False
        while left := [one.process for one in self.processes if one.process.is_alive()]:
            self.handle_signals()
            if self._asked > 1 and not again:
                again = True
                for process in left:
                    # not SIGTERM again: pending signals of the same kind are merged into one
                    os.kill(process.pid or 0, signal.SIGINT)
            if time.monotonic() > latest and not killed:
                killed = True
                for process in left:
                    logger.error("server process %d did not exit: killing it", process.pid)
                    process.kill()
            wait([process.sentinel for process in left], LOOK_SECONDS)
