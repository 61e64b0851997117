"""From a request to its texts: waiting for a job, or answering with its stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from fastapi import Request, Response

from app.jobs import Chunk, Job
from app.services import Services
from app.shapes import Family
from app.streaming import EventStream, open_stream
from model.generation import Generation

CLIENT_GONE = 499  # nobody reads it; for the log

Result = TypeVar("Result")


async def write(request: Request, parts: Services, job: Job) -> list[Generation] | None:
    """The finished rows; None, and the work cancelled, if the client goes away. Raises as Engine.run."""
    return await while_connected(request, _run(parts, job))


async def write_all(request: Request, parts: Services, jobs: Sequence[Job]) -> list[list[Generation]] | None:
    """The same for several jobs at once: all of them, or none."""

    async def all_of_them() -> list[list[Generation]]:
        writing = [asyncio.ensure_future(_run(parts, job)) for job in jobs]
        try:
            return await asyncio.gather(*writing)
        finally:
            for job in writing:
                job.cancel()

    return await while_connected(request, all_of_them())


def stream(
    parts: Services,
    job: Job,
    encode: Callable[[Chunk], Iterable[Any]],
    end: Callable[[], Iterable[bytes]],
    family: Family,
) -> EventStream:
    """Answers with a job's events, as `open_stream` does."""
    return open_stream(
        parts.engine, parts.streams, job, encode, end, family, lambda: parts.metrics.ended(job)
    )


def gone() -> Response:
    """The answer to a client that is not there any more."""
    return Response(status_code=CLIENT_GONE)


async def _run(parts: Services, job: Job) -> list[Generation]:
    try:
        return await parts.engine.run(job)
    finally:
        parts.metrics.ended(job)


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result | None:
    """The result of `work`; None, and `work` cancelled, if the client goes away before."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        leaving.cancel()
        working.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
