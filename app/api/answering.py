"""From a request to its texts: waiting for a job, or answering with its stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fastapi import Request, Response

from app.api.services import Services
from app.engine.job import Chunk, Job
from app.server.error_formats import Family
from app.server.streaming import EventStream, open_stream
from model.generation import Row

CLIENT_GONE = 499  # nobody reads it; for the log


async def write(request: Request, services: Services, job: Job) -> list[Row] | None:
    """The finished rows; None, and the work cancelled, if the client goes away. Raises as Engine.run."""
    rows = await write_all(request, services, [job])
    return rows[0] if rows else None


async def write_all(request: Request, services: Services, jobs: Sequence[Job]) -> list[list[Row]] | None:
    """The same for several jobs at once: all of them, or none."""
    watching = asyncio.ensure_future(_cancel_if_gone(request, services, jobs))
    try:
        if len(jobs) == 1:  # a task less
            rows = [await _run(services, jobs[0])]
        else:
            rows = await _run_all(services, jobs)
    finally:
        watching.cancel()
    unfinished = any(row.finish_reason is None for group in rows for row in group)
    return None if unfinished else rows


def stream(
    services: Services,
    job: Job,
    encode: Callable[[Chunk], Iterable[Any]],
    end: Callable[[], Iterable[bytes]],
    family: Family,
) -> EventStream:
    """Answers with a job's events, as `open_stream` does."""
    return open_stream(
        services.engine, services.streams, job, encode, end, family, lambda: services.metrics.ended(job)
    )


def gone() -> Response:
    """The answer to a client that is not there any more."""
    return Response(status_code=CLIENT_GONE)


async def _run(services: Services, job: Job) -> list[Row]:
    try:
        return await services.engine.run(job)
    finally:
        services.metrics.ended(job)


async def _run_all(services: Services, jobs: Sequence[Job]) -> list[list[Row]]:
    running = [asyncio.ensure_future(_run(services, job)) for job in jobs]
    try:
        return await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()


async def _cancel_if_gone(request: Request, services: Services, jobs: Sequence[Job]) -> None:
    """A cancelled job ends with rows that are not finished."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    for job in jobs:
        services.engine.cancel(job)
