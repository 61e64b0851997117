"""A run's own text: beginnings to offer as prompts, and which words of a passage occur in it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import anyio.to_thread
from fastapi import APIRouter

from app.api.native.run_schemas import Beginnings, WordCount, WordsRequest
from app.api.openapi import errors
from app.api.services import ServicesDep
from app.reports.beginnings import beginnings
from app.reports.report import has_text
from app.reports.word_counts import Known, compare, learn
from app.store.run import Run

router = APIRouter(tags=["training"])


@router.get("/runs/{name}/beginnings", summary="Prompts from a run's text", responses=errors(404, 422, 503))
async def prompts(name: str, services: ServicesDep) -> Beginnings:
    """Beginnings of lines and sentences that are common in the text of the run."""

    def work() -> Beginnings:
        run = services.runs.get(name)
        found = _beginnings(run.path, run.spec.corpus_sha256) if has_text(run) else ()
        return Beginnings(run=name, beginnings=list(found))

    return await anyio.to_thread.run_sync(work, limiter=services.reading)


@router.post("/runs/{name}/words", summary="Are these words real?", responses=errors(400, 404, 413, 422, 503))
async def words(name: str, asked: WordsRequest, services: ServicesDep) -> WordCount:
    """How many words a passage has, and how many of them occur in the text of the run.

    The first and the last word of the passage are not counted where they may be cut; none is where the run
    was imported without its text.
    """

    def work() -> WordCount:
        run = services.runs.get(name)
        if not has_text(run):
            return WordCount(run=name, words=0, real=0)
        passage = compare(_known(run.path, run.spec.corpus_sha256), [asked.text]).passages[0]
        return WordCount(run=name, words=passage.words, real=passage.known)

    return await anyio.to_thread.run_sync(work, limiter=services.reading)


# a run's text never changes; a run of the same name with another text has another sha256


@lru_cache(maxsize=64)
def _beginnings(path: Path, sha256: str) -> tuple[str, ...]:
    return tuple(beginnings(Run(path).text()))


@lru_cache(maxsize=4)
def _known(path: Path, sha256: str) -> Known:
    return learn(Run(path).text())
