"""Runs the jobs of a request and answers with their result or a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fastapi import Request, Response
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from app.api.pieces import Dumps, pieces
from app.api.services import Services
from app.engine.job import Chunk, Job
from app.server.auth import charge
from app.server.error_formats import Family
from app.server.protocol import GONE
from app.server.streaming import LEAST_SECONDS, LEAST_SPEED, BoundedStream, EventStream, open_stream
from model.generation import Row

CLIENT_GONE = 499  # never received, only logged
JSON = "application/json"
LARGE_BYTES = 100_000  # answers estimated to be larger are not built on the event loop


async def answer(
    request: Request,
    services: Services,
    size: int,
    jobs: Callable[[], Sequence[Job]],
    build: Callable[[list[list[Row]]], Any],
    dumps: Dumps,
) -> Response:
    """Run jobs and answer with the JSON that `build` makes of their rows. Raises as `write_all` does.

    A large answer is built in other threads and sent in pieces; their number is limited.

    Args:
        size: estimated size of the answer in bytes.
        jobs: creates the jobs.
        build: creates the answer, with `Items` for its long lists.
    """
    if size <= LARGE_BYTES:
        rows = await write_all(request, services, jobs())
        return gone() if rows is None else Response(dumps(build(rows)), media_type=JSON)
    services.answers.take(1.0)
    sending = False
    try:
        rows = await write_all(request, services, await run_in_threadpool(jobs))
        if rows is None:
            return gone()
        parts = iterate_in_threadpool(pieces(await run_in_threadpool(build, rows), dumps))
        sending = True
        return BoundedStream(parts, services.answers.sending(LEAST_SECONDS + size / LEAST_SPEED), JSON, {})
    finally:
        if not sending:
            services.answers.give_back()


async def write_all(request: Request, services: Services, jobs: Sequence[Job]) -> list[list[Row]] | None:
    """The finished rows of all jobs. If the client disconnects, cancels the jobs and returns None.

    Raises RateLimitedError, and as Engine.run does.
    """
    charge(sum(len(job.rows) for job in jobs) - 1)
    # a task waiting for "http.disconnect" would cost 10 us; GONE is set only by our HTTP protocol
    gone: asyncio.Future[None] = request.scope.get(GONE) or asyncio.get_running_loop().create_future()

    def cancel(_: asyncio.Future[None]) -> None:
        for job in jobs:
            services.engine.cancel(job)

    gone.add_done_callback(cancel)
    try:
        if len(jobs) == 1:  # saves a task
            rows = [await _run(services, jobs[0])]
        else:
            rows = await _run_all(services, jobs)
    finally:
        gone.remove_done_callback(cancel)
    unfinished = any(row.finish_reason is None for group in rows for row in group)
    return None if unfinished else rows


def stream(
    services: Services,
    job: Job,
    encode: Callable[[Chunk], Iterable[Any]],
    end: Callable[[], Iterable[bytes]],
    family: Family,
) -> EventStream:
    """Answer with a job's events. Raises RateLimitedError, and as `open_stream` does."""
    charge(len(job.rows) - 1)
    return open_stream(
        services.engine, services.streams, job, encode, end, family, lambda: services.metrics.ended(job)
    )


def gone() -> Response:
    """The response to a client that has disconnected."""
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
