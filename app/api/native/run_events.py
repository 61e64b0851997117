"""GET /runs/{name}/events: the progress of a run as server-sent events."""

from __future__ import annotations

import asyncio
import re
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Header, Response
from starlette.concurrency import run_in_threadpool

from app.api.native.run_info import describe
from app.api.native.run_schemas import RunInfo
from app.api.openapi import errors, streamed
from app.api.services import Services, ServicesDep
from app.errors import RunError, RunFileError
from app.server.streaming import SLACK_SECONDS, EventStream, event
from app.store.records import ENDED
from app.store.run import Run

LOOK_SECONDS = 0.5
PING_SECONDS = 15.0
MOST_POINTS = 500  # maximum number of missed points that a reconnecting client gets
# fields of the run that are sent with the newest point
PROGRESS = {"fraction", "characters_per_second", "expected_end", "seconds_left"}
CURSOR = re.compile(r"(-?[0-9]{1,12})\.([0-9]{1,9})\.(-?[0-9]{1,12})", re.ASCII)

router = APIRouter(tags=["training"])


class Cursor(NamedTuple):
    """How much was sent: the step of the curve, the number of samples, the step of the last checkpoint."""

    step: int = -1
    samples: int = 0
    checkpoint: int = -1

    def __str__(self) -> str:
        return f"{self.step}.{self.samples}.{self.checkpoint}"


@router.get(
    "/runs/{name}/events",
    summary="Watch a run",
    response_class=Response,
    responses=errors(404, 422, 503)
    | streamed()
    | {204: {"description": "the run has ended and there are no more events"}},
)
async def events(
    name: str,
    services: ServicesDep,
    last_event_id: Annotated[
        str | None,
        Header(description="The id of the last event received; `0` for all events from the beginning."),
    ] = None,
) -> Response:
    """Events `state` (the run, as `/runs/{name}` has it), `progress`, `sample` and `checkpoint`.

    The newest `progress` also has the fraction done, the speed, the expected end and the seconds left. The
    stream ends with the run. A client that reconnects with `Last-Event-ID` misses nothing and gets nothing
    twice; without it the newest event of each kind is sent first.
    """
    run = await run_in_threadpool(services.runs.get, name)
    given = CURSOR.fullmatch(last_event_id or "")
    cursor = Cursor(*map(int, given.groups())) if given else None
    watch = Watch(services, run, cursor if cursor or last_event_id != "0" else Cursor())
    first = await run_in_threadpool(watch.look)
    if cursor is not None and watch.ended and not watch.told_news:
        return Response(status_code=204)  # stops an EventSource from reconnecting
    services.watchers.take(LOOK_SECONDS)
    seconds = services.settings.watch_seconds
    end = time.monotonic() + seconds
    following = _follow(watch, first, lambda: services.watchers.closing or time.monotonic() > end)
    return EventStream(following, services.watchers.give_back, seconds + SLACK_SECONDS)


async def _follow(watch: Watch, first: list[bytes], closing: Callable[[], bool]) -> AsyncIterator[bytes]:
    news, told_at = first, time.monotonic()
    while True:
        if news:
            yield b"".join(news)
            told_at = time.monotonic()
        elif time.monotonic() - told_at > PING_SECONDS:
            yield b": nothing new\n\n"
            told_at = time.monotonic()
        if watch.ended or closing():
            return
        await asyncio.sleep(LOOK_SECONDS)
        try:
            news = await run_in_threadpool(watch.look)
        except RunFileError:
            return  # a client that reconnects gets the reason
        except (RunError, FileNotFoundError):
            yield event({"name": watch.run.name, "state": "deleted"}, "state", str(watch.cursor))
            return


@dataclass
class Watch:
    """One client's view of a run. If `given` is None, it starts with the newest event of each kind."""

    services: Services
    run: Run
    given: Cursor | None

    def __post_init__(self) -> None:
        self.cursor = self.given or Cursor()
        self.ended = self.told_news = False
        self._state: tuple[Any, ...] = ()
        self._seen: tuple[int, int] | None = None
        self._first = self.given is None

    def look(self) -> list[bytes]:
        """The events since the last look. Raises RunError or FileNotFoundError if the run is gone."""
        run = self.services.runs.get(self.run.name)
        # cached, so that many clients cause no more reads than one
        info = self.services.looks.get(run.name, lambda: describe(self.services, run))
        news = [*self._curve(info), *self._samples(), *self._checkpoint()]
        self._first = False
        self.told_news = bool(news)
        state = (info.state, info.stale, info.reason, info.priority, tuple(info.warnings))
        if state != self._state:
            told = event(info.model_dump(mode="json"), "state", str(self.cursor))
            news = [told, *news] if not self._state and info.state not in ENDED else [*news, told]
            self._state = state
        self.ended = info.state in ENDED
        return news

    def _curve(self, info: RunInfo) -> list[bytes]:
        points = self.services.curves.get(self.run).points
        last = points[-1]["step"] if points else -1
        # a run that was rolled back or replaced sends its steps again
        self.cursor = self.cursor._replace(step=min(self.cursor.step, last))
        new = points[bisect_right(points, self.cursor.step, key=lambda point: point["step"]) :]
        if self._first:
            new = new[-1:]
        elif len(new) > MOST_POINTS:
            new = [*new[:: len(new) // MOST_POINTS + 1], new[-1]]
        told = []
        now = info.model_dump(include=PROGRESS)
        for number, point in enumerate(new, 1):
            self.cursor = self.cursor._replace(step=point["step"])
            told.append(event(point | now if number == len(new) else point, "progress", str(self.cursor)))
        return told

    def _samples(self) -> list[bytes]:
        count = self.run.files().samples
        if count == self.cursor.samples:
            return []
        # a run that was rolled back or replaced has fewer
        after = count - 1 if self._first else min(self.cursor.samples, count)
        told = []
        for number, sample in self.run.samples_after(after, MOST_POINTS):
            self.cursor = self.cursor._replace(samples=number)
            told.append(event(sample, "sample", str(self.cursor)))
        self.cursor = self.cursor._replace(samples=max(count, self.cursor.samples if told else 0))
        return told

    def _checkpoint(self) -> list[bytes]:
        latest = self.run.usable_latest()
        if latest is None or latest.newest.step == self.cursor.checkpoint:
            return []
        self.cursor = self.cursor._replace(checkpoint=latest.newest.step)
        told = latest.newest.model_dump(mode="json") | {"model": f"{self.run.name}@{latest.newest.step}"}
        return [event(told, "checkpoint", str(self.cursor))]
