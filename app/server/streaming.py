"""Server-sent events from a job that is being written."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, cast

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.engine.engine import Engine
from app.engine.job import Chunk, Job
from app.server.error_formats import Family, body_of
from app.server.problems import problem_of
from app.server.protocol import GONE
from app.slots import Downloads, Slots

DONE = b"data: [DONE]\n\n"  # ends an OpenAI stream, whatever happened
PLAIN_CHARACTERS = 1 << 14  # whose events are made in one turn of the event loop
TOLD_CHARACTERS = 128  # the same where each has its log-probabilities
LARGE_BYTES = 1 << 18  # what a connection may hold that nobody reads
SLICE = 1 << 16
LEAST_SECONDS, LEAST_SPEED = 60.0, 50_000  # a download may take so long, and a second more for so many bytes
SLACK_SECONDS = 5.0  # beyond its work's deadline, that a reader may take

_json = json.JSONEncoder(separators=(",", ":")).encode  # `json.dumps` would make an encoder for each event

logger = logging.getLogger(__name__)


class BoundedStream(StreamingResponse):
    """An answer in pieces, sent within `bound`: a context that cuts it and releases what it holds.

    It also ends when the client goes. Starlette watches for that in a second task, inside a task group.
    """

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        bound: AbstractAsyncContextManager[None],
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(pieces, media_type=media_type, headers=headers)
        self._bound = bound

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._bound:
            gone = scope.get(GONE)
            if gone is None:  # another server than ours
                await super().__call__(scope, receive, send)
            else:
                await _unless(gone, self.stream_response(send))


async def _unless(gone: asyncio.Future[None], work: Coroutine[Any, Any, None]) -> None:
    """Awaits `work`, and cancels it when `gone` is done."""
    task = cast("asyncio.Task[None]", asyncio.current_task())
    requests, working, cut = task.cancelling(), True, False

    def cancel(_: asyncio.Future[None]) -> None:
        nonlocal cut
        if working:  # a callback that is already scheduled cannot be removed
            cut = task.cancel()

    gone.add_done_callback(cancel)
    try:
        await work
    except asyncio.CancelledError:
        if not cut or task.uncancel() > requests:
            raise  # something else cancelled it, such as the end of its time
    finally:
        working = False
        gone.remove_done_callback(cancel)


def bounded_answer(data: bytes, media_type: str, headers: Mapping[str, str], places: Downloads) -> Response:
    """An answer whose bytes are known: a large one takes a place, and is cut if it is not read in time.

    Raises OverloadedError.
    """
    if len(data) <= LARGE_BYTES:
        return Response(data, media_type=media_type, headers=headers)
    places.take(LEAST_SECONDS)
    bound = places.sending(LEAST_SECONDS + len(data) / LEAST_SPEED)
    return BoundedStream(_slices(data), bound, media_type, {**headers, "content-length": str(len(data))})


async def _slices(data: bytes) -> AsyncIterator[bytes]:
    view = memoryview(data)
    for begin in range(0, len(view), SLICE):
        yield bytes(view[begin : begin + SLICE])


class EventStream(BoundedStream):
    """Server-sent events; whatever ends them, their job ends too and their slot is free again.

    Args:
        events: the body, event by event.
        close: called once, at the end.
        seconds: longest it may take, so that a client that stops reading does not hold it indefinitely.
    """

    def __init__(self, events: AsyncIterator[bytes], close: Callable[[], object], seconds: float) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(events, _within(seconds, close), "text/event-stream", headers)


@asynccontextmanager
async def _within(seconds: float, close: Callable[[], object]) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        logger.warning("a stream was cut off: the client did not read it within %g s", seconds)
    finally:
        close()


def open_stream(
    engine: Engine,
    slots: Slots,
    job: Job,
    encode: Callable[[Chunk], Iterable[Any]],
    end: Callable[[], Iterable[bytes]],
    family: Family,
    on_end: Callable[[], object],
) -> EventStream:
    """Admits a streamed job, or raises as `Engine.stream` does, and answers with its events.

    Args:
        encode: the events of a chunk, as JSON data.
        end: what follows the last chunk, as bytes of whole events.
        family: in whose shape an error in mid-stream is told.
        on_end: called once, whatever ended the stream.
    """
    slots.take(1.0)

    def close() -> None:
        slots.give_back()
        engine.cancel(job)
        on_end()

    try:
        chunks = engine.stream(job)
    except BaseException:
        slots.give_back()
        raise
    seconds = (job.seconds or 0.0) + SLACK_SECONDS
    most = PLAIN_CHARACTERS if job.rows[0].logprobs is None else TOLD_CHARACTERS
    return EventStream(_events(chunks, encode, end, family, most), close, seconds)


async def _events(
    chunks: AsyncIterator[list[Chunk]],
    encode: Callable[[Chunk], Iterable[Any]],
    end: Callable[[], Iterable[bytes]],
    family: Family,
    most: int,
) -> AsyncIterator[bytes]:
    """Sends the news in events of at most `most` characters. An error ends them in the family's shape."""
    try:
        async with aclosing(cast(AsyncGenerator[list[Chunk]], chunks)) as source:
            async for news in source:
                for number, group in enumerate(_bounded(news, most)):
                    if number:  # what a slow reader has let pile up is not made in one turn
                        await asyncio.sleep(0)
                    yield b"".join(event(data) for chunk in group for data in encode(chunk))
        for last in end():
            yield last
    except Exception as error:
        problem = problem_of(error)
        if problem.status == 500:
            logger.exception("a stream failed")
        yield event(body_of(problem, family), "error" if family is Family.NATIVE else None)
        if family is Family.OPENAI:
            yield DONE


def _bounded(news: list[Chunk], most: int) -> Iterator[list[Chunk]]:
    """The chunks in groups of together at most `most` characters; longer ones are cut."""
    group: list[Chunk] = []
    room = most
    for chunk in news:
        while len(chunk.text) > room:
            if room:
                group.append(chunk._replace(text=chunk.text[:room], finish_reason=None))
                chunk = chunk._replace(start=chunk.start + room, text=chunk.text[room:])
            yield group
            group, room = [], most
        group.append(chunk)
        room -= len(chunk.text)
    if group:
        yield group


def event(data: Any, name: str | None = None, cursor: str | None = None) -> bytes:
    """One server-sent event of JSON data. Of ASCII, so that no character can end a line or fail to encode.

    `cursor` is its id, which a client that comes back gives as `Last-Event-ID`.
    """
    head = f"event: {name}\n" if name else ""
    if cursor is not None:
        head += f"id: {cursor}\n"
    return f"{head}data: {_json(data)}\n\n".encode()
