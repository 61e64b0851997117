"""TGI's routes: `POST /`, `/generate_stream`, and `/generate` with a body that has `inputs`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.answering import answer, stream
from app.api.openapi import streamed, tgi_errors
from app.api.pieces import utf8_json
from app.api.services import Services, ServicesDep
from app.api.tgi.answers import TgiOrder
from app.api.tgi.schemas import TgiRequest, TgiResponse
from app.server.error_formats import Family, mark
from model.generation import Row

ERRORS = tgi_errors(400, 404, 413, 422, 424, 503)

router = APIRouter(tags=["TGI"])


@router.post(
    "/", summary="For huggingface_hub", response_model=list[TgiResponse], responses=ERRORS | streamed()
)
async def root(request: Request, services: ServicesDep, body: TgiRequest) -> Response:
    """TGI's compatibility route. The answer is a list of one text, or a stream with `"stream": true`."""
    return await answer_tgi(request, services, body, in_list=True)


@router.post(
    "/generate_stream",
    summary="TGI's stream",
    response_class=Response,
    responses=ERRORS | streamed(),
)
async def generate_stream(request: Request, services: ServicesDep, body: TgiRequest) -> Response:
    """One event per character; the last one has `generated_text` and `details`."""
    return await answer_tgi(request, services, body.model_copy(update={"stream": True}))


async def answer_tgi(
    request: Request, services: Services, body: TgiRequest, in_list: bool = False
) -> Response:
    """Answer with a text or a stream in TGI's format, and errors in the same format."""
    mark(request.scope, Family.TGI)
    model = await services.model_of_client(body.model, tgi=True)
    asked = TgiOrder(body, model, services.settings, streamed=bool(body.stream))
    seconds = services.settings.deadline_seconds
    if body.stream:
        job = asked.order.job(model, seconds, streamed=True)
        return stream(services, job, asked.events(job.rows[0]).encode, tuple, Family.TGI)

    def build(rows: list[list[Row]]) -> Any:
        content = asked.answer(rows[0])
        return [content] if in_list else content

    return await answer(
        request, services, asked.order.size, lambda: [asked.order.job(model, seconds)], build, utf8_json
    )
