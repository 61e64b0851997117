"""What `charloom serve` prints in a terminal: the page's address, the progress of training, what was saved.

It reads the files of the runs, so it does not matter which process trains them.
"""

from __future__ import annotations

import math
import sys
import threading
from contextlib import suppress
from types import TracebackType

from app.commands.progress import duration
from app.store.records import Status
from app.store.run import Run
from app.store.run_store import RunStore
from app.streams import visible
from model.errors import CharloomError

FIRST_SECONDS, SECONDS = 2.0, 10.0  # time until the first line, and between later ones
LAST_WORDS = 48  # characters of the newest sample
SETTLED_SECONDS = 2.0  # training time after which the speed is known well enough


class Narrator:
    """Prints a line about each run that has changed since its last line; used as a context manager."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._seen = {run.name: run.standing for run in self._runs()}
        self._began = dict(self._seen)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_telling, name="narrator", daemon=True)

    def __enter__(self) -> Narrator:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _keep_telling(self) -> None:
        pause = FIRST_SECONDS
        while not self._stopping.wait(pause):
            moved = self.tell()
            pause = SECONDS if moved else FIRST_SECONDS

    def tell(self) -> bool:
        """Print a line about each run that has changed; return whether any has."""
        moved = False
        for run in self._runs():
            status, before = run.standing, self._seen.get(run.name, Status())
            if (status.state, status.step) == (before.state, before.step) or status.state == "queued":
                continue
            self._seen[run.name] = status
            say(line_of(run, status))
            moved = True
        return moved

    def say_goodbye(self) -> None:
        """Print what was saved and how to continue; call it after the workers have stopped."""
        trained = [(run, run.standing) for run in self._runs()]
        trained = [(run, now) for run, now in trained if now.step != self._began.get(run.name, Status()).step]
        for run, now in trained:
            say(f"{run.name} is {now.state if now.state == 'finished' else 'saved'} at {updates(now)}.")
        waiting = any(now.state in ("queued", "training") for _, now in trained)
        say("Stopped. The same command continues from there." if waiting else "Stopped.")

    def _runs(self) -> list[Run]:
        try:
            return self._store.list()
        except (CharloomError, OSError):  # the server logs it
            return []


def line_of(run: Run, status: Status) -> str:
    """`notes  12%  update 1,250 of 4,000  loss 1.83, as if among 6.2 characters  2:10 left  “…king”`."""
    loss, measured = status.validation_loss, status.validation_step
    if loss is None or measured == 0:  # that of the untrained network says nothing of this one
        loss, measured = status.smooth_loss, None
    parts = [
        run.name,
        f"{status.fraction:.0%}" if status.state == "training" else status.state,
        updates(status),
    ]
    if loss is not None and loss < math.log(sys.maxunicode):
        at = "" if measured in (None, status.step) else f" at update {measured:,}"
        parts.append(f"loss {loss:.2f}{at}, as if among {math.exp(loss):.1f} characters")
    if status.state == "training" and status.expected_end is not None and status.seconds >= SETTLED_SECONDS:
        parts.append(f"{duration(status.expected_end - status.heartbeat)} left")
    if status.reason and status.state in ("failed", "paused"):
        parts.append(status.reason)
    return "  ".join([*parts, *last_words(run)])


def updates(status: Status) -> str:
    return f"update {status.step:,}" + (f" of {status.steps:,}" if status.steps else "")


def last_words(run: Run) -> list[str]:
    """The end of the newest sample in quotes, if there is one."""
    try:
        samples = run.samples_after(0, limit=1)
    except CharloomError:
        return []
    text = " ".join(samples[-1][1]["text"].split()) if samples else ""
    return [f"“…{text[-LAST_WORDS:]}”"] if text else []


def say(text: str) -> None:
    """Print a line on standard error, with escapes for control characters and those the terminal lacks.

    Ignores write errors, such as a full disk or a closed pipe, so that they cannot stop the server.
    """
    encoding = sys.stderr.encoding or "utf-8"
    with suppress(OSError):
        shown = visible(text).encode(encoding, "backslashreplace").decode(encoding)
        print(shown, file=sys.stderr, flush=True)
