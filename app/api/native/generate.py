"""POST and GET /generate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from pydantic import Discriminator, Tag

from app.api.answering import answer, stream
from app.api.native.text_schemas import GenerateBody, GenerateRequest, GenerateResponse, Losses
from app.api.openapi import errors, errors_of_both, streamed
from app.api.pieces import utf8_json
from app.api.services import Services, ServicesDep
from app.api.tgi.routes import answer_tgi
from app.api.tgi.schemas import TgiRequest, TgiResponse
from app.engine.job import Chunk
from app.engine.loaded_model import LoadedModel
from app.engine.order import SAMPLING, Order
from app.errors import InvalidRequestError, shortened
from app.server.error_formats import Family
from app.server.problems import NATIVE_BODY, TGI_BODY
from app.server.streaming import event
from model.generation import Row

ERRORS = errors(400, 404, 413, 422, 503, 504)
BOTH = errors_of_both(400, 404, 413, 422, 424, 503, 504)
BODIES = {
    "a passage": {"value": {"prompt": "ROMEO:", "length": 300, "temperature": 0.8}},
    "the same text again": {"value": {"prompt": "ROMEO:", "length": 300, "temperature": 0.8, "seed": 7}},
    "until a line ends": {"value": {"prompt": "The ", "stop": ["\n"], "top_p": 0.9}},
    "with an early checkpoint": {"value": {"model": "classic@10000", "length": 200}},
    "the most likely": {"value": {"prompt": "I ", "temperature": 0, "length": 100}},
    "as a stream": {"value": {"prompt": "O ", "length": 300, "stream": True}},
    "three texts": {"value": {"prompt": "O ", "length": 100, "n": 3}},
    "as TGI's clients send it": {"value": {"inputs": "ROMEO:", "parameters": {"max_new_tokens": 100}}},
}


def _kind_of(body: Any) -> str:
    return TGI_BODY[0] if isinstance(body, dict) and "inputs" in body else NATIVE_BODY[0]


AnyBody = Annotated[
    Annotated[GenerateBody, Tag(NATIVE_BODY[0])] | Annotated[TgiRequest, Tag(TGI_BODY[0])],
    Discriminator(_kind_of),
]

router = APIRouter(tags=["text"])


@router.post(
    "/generate",
    summary="Write text",
    response_model=GenerateResponse | TgiResponse,
    responses=BOTH | streamed(),
)
async def generate(
    request: Request, services: ServicesDep, body: Annotated[AnyBody, Body(openapi_examples=BODIES)]
) -> Response:
    """Continue a prompt, character by character, with the newest checkpoint or a named one.

    The answer has the checkpoint, step and seed: sent back as `model` and `seed`, they give the same text.
    With `"stream": true` the answer is server-sent events: `{"choice", "text", "finish_reason"}` while the
    text is written, then one event named `done` with the answer that a request without `stream` gets.

    The body may also be TGI's (`inputs`, `parameters`); the answer is then in TGI's format.
    """
    if isinstance(body, TgiRequest):
        return await answer_tgi(request, services, body)
    return await _answer(request, services, body, body.logit_bias or {})


@router.get(
    "/generate",
    summary="Write text by a link",
    response_model=GenerateResponse,
    responses=ERRORS | streamed(),
)
async def generate_by_link(
    request: Request, services: ServicesDep, query: Annotated[GenerateRequest, Query()]
) -> Response:
    """The same as POST /generate, with the fields in the query string; `stop` may be repeated."""
    return await _answer(request, services, query, {})


async def _answer(
    request: Request, services: Services, asked: GenerateRequest, bias: dict[str, float]
) -> Response:
    model = await services.model(asked.model)
    sampling = {name: getattr(asked, name) for name in SAMPLING}
    order = Order.of(
        services.settings,
        [asked.prompt or ""],
        asked.length,
        sampling | {"logit_bias": _by_id(bias, model)},
        asked.seed,
        asked.stop,
        asked.n,
        unknown=asked.unknown,
    ).read_by(model, services.settings)
    seconds = services.settings.deadline_seconds

    if asked.stream:
        job = order.job(model, seconds, streamed=True)

        def end() -> list[bytes]:
            return [event(describe(order, model, job.rows), "done")]

        return stream(services, job, _events, end, Family.NATIVE)

    def build(rows: list[list[Row]]) -> Any:
        return describe(order, model, rows[0])

    return await answer(request, services, order.size, lambda: [order.job(model, seconds)], build, utf8_json)


def describe(order: Order, model: LoadedModel, rows: Sequence[Row]) -> dict[str, Any]:
    """The answer for finished rows, in the form of a GenerateResponse."""
    choices = [_choice(row) for row in rows]
    return {
        "text": choices[0]["text"],
        "prompt": order.prompts[0],
        "length": choices[0]["length"],
        "finish_reason": choices[0]["finish_reason"],
        "seed": order.seed,
        "model": model.id,
        "step": model.step,
        "digest": model.digest,
        "losses": Losses(**{name: model.progress.get(name) for name in Losses.model_fields}).model_dump(),
        # a single text need not be sent twice
        **({"choices": choices} if order.n > 1 else {}),
        **order.changed_field,
    }


def _choice(row: Row) -> dict[str, Any]:
    """A finished row in the form of a Choice."""
    reason = "stop" if row.finish_reason == "stop" else "length"
    return {"text": row.text, "length": len(row.text), "finish_reason": reason}


def _events(chunk: Chunk) -> Iterator[dict[str, Any]]:
    yield {"choice": chunk.choice, "text": chunk.text, "finish_reason": chunk.finish_reason}


def _by_id(bias: dict[str, float], model: LoadedModel) -> tuple[tuple[int, float], ...]:
    """The bias by id. Raises InvalidRequestError for a character that the model does not know."""
    known = model.vocabulary.characters
    for character in bias:
        if character not in known:
            raise InvalidRequestError(
                "logit_bias", f"must hold characters of {model.id}. Given: {shortened(character)}"
            )
    return tuple((known.index(character), value) for character, value in bias.items())
