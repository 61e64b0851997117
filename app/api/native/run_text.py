"""Prompts from a run's text, and a passage that each checkpoint writes from the first of them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response

from app.api.native.run_schemas import Beginnings, PassageInfo
from app.api.openapi import errors
from app.api.services import Services, ServicesDep
from app.engine.loaded_model import LoadedModel
from app.engine.order import Order
from app.reports.beginnings import beginnings
from app.reports.report import has_text
from app.reports.word_counts import Known, compare, learn
from app.server.etags import etag, not_modified
from app.store.run import Run

router = APIRouter(tags=["training"])

LENGTH, TEMPERATURE, SEED = 380, 0.6, 1  # of a passage
COUNTED = 4  # texts generated to count words; the first is the passage


@router.get("/runs/{name}/beginnings", summary="Prompts from a run's text", responses=errors(404, 422, 503))
async def prompts(name: str, services: ServicesDep) -> Beginnings:
    """Frequent beginnings of lines and sentences in the text of the run."""

    def work() -> Beginnings:
        return Beginnings(run=name, beginnings=list(_beginnings_of(services.runs.get(name))))

    return await anyio.to_thread.run_sync(work, limiter=services.reading)


@router.get(
    "/runs/{name}/passage",
    summary="A passage by a checkpoint",
    response_model=PassageInfo,
    responses=errors(404, 422, 503, 504),
)
async def passage(
    name: str,
    request: Request,
    services: ServicesDep,
    step: Annotated[
        int | None, Query(ge=0, le=2**63 - 1, description="Step of a checkpoint; the newest by default.")
    ] = None,
) -> Response:
    """A passage with the same prompt, settings and seed for every checkpoint, for comparison.

    Each passage is generated once for all clients, so it does not count against a rate limit. `words` are
    counted in this passage and three others; `real` of them occur in the text of the run.
    """
    model = await services.model(name if step is None else f"{name}@{step}")
    tag = etag("passage", model.id, model.digest)
    if (known := not_modified(request, tag)) is not None:
        return known
    body = await services.passages.get(tag, lambda: _write(services, name, model))
    return Response(body, media_type="application/json", headers={"etag": tag, "cache-control": "no-cache"})


async def _write(services: Services, name: str, model: LoadedModel) -> bytes:
    settings = services.settings

    def first_beginning() -> str:
        return "".join(_beginnings_of(services.runs.get(name))[:1])[: settings.max_prompt]

    beginning = await anyio.to_thread.run_sync(first_beginning, limiter=services.reading)
    length, count = min(LENGTH, settings.max_length), min(COUNTED, settings.max_n)
    sampling: dict[str, Any] = {"temperature": TEMPERATURE}
    order = Order.of(settings, [beginning], length, sampling, SEED, n=count, unknown="drop")
    order = order.read_by(model, settings)
    job = order.job(model, settings.deadline_seconds)
    try:
        rows = await services.engine.run(job)
    finally:
        services.metrics.ended(job)

    def body() -> bytes:
        run = services.runs.get(name)
        counted = []
        if has_text(run):
            known = _known(run.path, run.spec.corpus_sha256)
            counted = compare(known, [row.text for row in rows]).passages
        return (
            PassageInfo(
                model=model.id,
                step=model.step,
                digest=model.digest,
                prompt=str(order.prompts[0]),
                text=rows[0].text,
                words=sum(one.words for one in counted),
                real=sum(one.known for one in counted),
            )
            .model_dump_json()
            .encode()
        )

    return await anyio.to_thread.run_sync(body, limiter=services.reading)


def _beginnings_of(run: Run) -> tuple[str, ...]:
    return _beginnings(run.path, run.spec.corpus_sha256) if has_text(run) else ()


# the sha256 is in the key because a new run may have the name of a deleted one
@lru_cache(maxsize=64)
def _beginnings(path: Path, sha256: str) -> tuple[str, ...]:
    return tuple(beginnings(Run(path).text()))


@lru_cache(maxsize=4)
def _known(path: Path, sha256: str) -> Known:
    return learn(Run(path).text())
