"""GET /report: the assignment's report for any run."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse

from app.api.native.run_info import ModelQuery
from app.api.openapi import errors
from app.api.services import Services, ServicesDep
from app.engine.loaded_model import LoadedModel
from app.errors import RenderError
from app.reports.gradchecks import Method
from app.reports.report import (
    METHODS,
    NO_TEXT,
    Details,
    ReportFormat,
    ReportPages,
    checked_model,
    find_words,
    has_text,
    inlined,
    policy,
    shown_samples,
    words_key,
)
from app.reports.word_counts import Findings
from app.server.accept import preferred
from app.server.streaming import BoundedStream
from app.store.run import Run
from model.errors import CharloomError

FORMS: dict[str, ReportFormat] = {"text/html": "html", "text/markdown": "markdown"}
DERIVATION = "derivation"  # relative to /report
SLACK_SECONDS = 60.0  # time to read the report, in addition to that for its computation

router = APIRouter(tags=["proof"])
logger = logging.getLogger(__name__)

Line = Annotated[str, Query(max_length=100)]


@router.get(
    "/report",
    summary="The full report of a run",
    response_class=Response,
    responses=errors(404, 406, 422, 429, 503, 504) | {200: {"content": {kind: {} for kind in FORMS}}},
)
async def report(
    request: Request,
    services: ServicesDep,
    model: ModelQuery = None,
    format: Annotated[
        ReportFormat | None, Query(description="By default, the format that `Accept` prefers.")
    ] = None,
    author: Line = "",
    date: Line = "",
) -> Response:
    """Loss curve, samples, word counts, and the gradients next to the figures of the assignment.

    One page, as HTML or Markdown, made from the run's files; `author` and `date` are printed on it. Text,
    curve and samples are sent first and the gradients last: their check takes seconds, once per checkpoint.
    """
    form = format or FORMS[preferred(request.headers.get("accept"), list(FORMS))]
    run = await run_in_threadpool(services.run, model)
    services.downloads.take(1.0)
    try:
        pages, reason = await _pages(services, run, form, author, date)
    except BaseException:
        services.downloads.give_back()
        raise
    seconds = SLACK_SECONDS + services.settings.plot_seconds + 2 * services.settings.gradcheck_seconds
    headers = {"content-security-policy": policy(), "cache-control": "no-cache", "vary": "accept"}
    headers["x-accel-buffering"] = "no"  # a proxy that waits for the end would hold back the text
    pieces = _pieces(services, pages, reason)
    return BoundedStream(pieces, services.downloads.sending(seconds), f"text/{form}", headers)


@router.get(
    "/derivation",
    summary="The derivation of the gradients",
    response_class=Response,
    responses=errors() | {200: {"content": {"text/plain": {}}}},
)
async def derivation() -> PlainTextResponse:
    """Every equation of the model, followed by its derivative, as a readable program."""
    return PlainTextResponse((files("model") / "reference.py").read_text(encoding="utf-8"))


async def _pages(
    services: Services, run: Run, form: ReportFormat, author: str, date: str
) -> tuple[ReportPages, str]:
    """The report, and the reason if its gradients cannot be checked."""
    curve = await run_in_threadpool(services.curves.get, run)
    picture = f"loss-curve.svg?model={quote(run.name)}"
    if form == "html":
        key = ("loss-curve", curve.version, "svg", "light", "wide")
        drawn = (await run_in_threadpool(curve.drawn), "svg", "light", "wide")
        picture = inlined(await services.renderer.picture(key, "draw_loss_curve", *drawn))
    checked: LoadedModel | None = None
    reason = ""
    try:
        checked = await run_in_threadpool(checked_model, run, services.models)
    except CharloomError as error:
        reason = str(error)
    samples = await run_in_threadpool(shown_samples, run)
    details = Details(picture, DERIVATION, author, date)
    return ReportPages(run, curve, checked, samples, details, form), reason


async def _pieces(services: Services, pages: ReportPages, reason: str) -> AsyncIterator[bytes]:
    def encoded(text: str) -> bytes:
        return text.encode("utf-8", "backslashreplace")

    yield await run_in_threadpool(lambda: encoded(pages.first()))  # samples may have megabytes
    findings, why = await _findings(services, pages)
    yield encoded(pages.words(findings, why))
    checks: dict[Method, list[dict[str, object]]] = {}
    if not reason:
        try:
            for method in METHODS:
                checks[method] = (await services.gradchecks.report(pages.model, method)).parameters
        except CharloomError as error:
            checks, reason = {}, str(error)
    yield encoded(pages.gradients(checks, reason))


async def _findings(services: Services, pages: ReportPages) -> tuple[Findings | None, str]:
    run, passages = pages.run, pages.passages
    if not await run_in_threadpool(has_text, run):
        return None, NO_TEXT
    try:
        task = (str(services.runs.root), run.name, passages)
        return await services.renderer.helper.result(words_key(run, passages), find_words, *task), ""
    except RenderError as error:
        logger.error("the words of run %s cannot be counted: %s", run.name, error)
        return None, "its text cannot be read"
    except CharloomError as error:
        return None, str(error)
