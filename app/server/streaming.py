"""Server-sent events and large answers, with limits on how long a client may take to read them."""

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

DONE = b"data: [DONE]\n\n"  # ends every OpenAI stream, also after an error
PLAIN_CHARACTERS = 1 << 14  # maximum characters encoded without yielding to the event loop
TOLD_CHARACTERS = 128  # the same, with log-probabilities for each character
LARGE_BYTES = 1 << 18  # larger answers occupy a slot until the client has read them
SLICE = 1 << 16
LEAST_SECONDS, LEAST_SPEED = 60.0, 50_000  # time limit of a download: seconds, plus bytes divided by speed
SLACK_SECONDS = 5.0  # time that a client may take to read after its job's deadline

_json = json.JSONEncoder(separators=(",", ":")).encode  # `json.dumps` would make an encoder for each event

logger = logging.getLogger(__name__)


class BoundedStream(StreamingResponse):
    """An answer in pieces, sent inside `bound`, a context that cuts it off and releases its resources.

    It also ends when the client disconnects, without the task group that Starlette needs for that.
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
            if gone is None:  # not our HTTP protocol, such as in tests
                await super().__call__(scope, receive, send)
            else:
                await _unless(gone, self.stream_response(send))


async def _unless(gone: asyncio.Future[None], work: Coroutine[Any, Any, None]) -> None:
    """Await `work`, but cancel it when `gone` is done."""
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
            raise  # cancelled by something else, such as a timeout
    finally:
        working = False
        gone.remove_done_callback(cancel)


def bounded_answer(data: bytes, media_type: str, headers: Mapping[str, str], places: Downloads) -> Response:
    """An answer whose bytes are known; a large one takes a slot and is cut off if it is not read in time.

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
    """Server-sent events, cut off after `seconds`, because the client may stop reading.

    Args:
        events: the body, event by event.
        close: called once at the end, whatever ended the stream.
        seconds: maximum duration.
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
    """Admit a streamed job, or raise as `Engine.stream` does, and answer with its events.

    Args:
        encode: converts a chunk to JSON data, one item per event.
        end: encoded events to send after the last chunk.
        family: determines the format of an error in mid-stream.
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
    """The events of the chunks, encoded `most` characters at a time; an error becomes the last event."""
    try:
        async with aclosing(cast(AsyncGenerator[list[Chunk]], chunks)) as source:
            async for news in source:
                for number, group in enumerate(_bounded(news, most)):
                    if number:  # yield to other requests while encoding the backlog of a slow client
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
    """The chunks in groups of at most `most` characters in total; longer chunks are split."""
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
    """One server-sent event of JSON data, in ASCII, so that no character can end a line or fail to encode.

    `cursor` is its id, which a reconnecting client sends as `Last-Event-ID`.
    """
    head = f"event: {name}\n" if name else ""
    if cursor is not None:
        head += f"id: {cursor}\n"
    return f"{head}data: {_json(data)}\n\n".encode()
