"""Text on request."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Query, Request, Response

from app.errors import InvalidRequestError, shortened
from app.jobs import Job
from app.routes.documents import errors
from app.schemas import SEED_BITS, GenerateBody, GenerateRequest, GenerateResponse, Losses
from app.services import Parts, Services
from app.settings import Settings
from app.store import LoadedModel
from model.generation import Generation
from model.sampling import SamplingConfig

CLIENT_GONE = 499
ERRORS = errors(400, 404, 413, 422, 429, 503, 504)
BODIES = {
    "a passage": {"value": {"prompt": "ROMEO:", "length": 300, "temperature": 0.8}},
    "the same again": {"value": {"prompt": "ROMEO:", "length": 300, "temperature": 0.8, "seed": 7}},
    "until a line ends": {"value": {"prompt": "The ", "stop": ["\n"], "top_p": 0.9}},
    "by an early network": {"value": {"model": "classic@10000", "length": 200}},
    "the likeliest": {"value": {"prompt": "I ", "temperature": 0, "length": 100}},
}

Result = TypeVar("Result")

router = APIRouter(tags=["text"])


@router.post("/generate", summary="Write text", response_model=GenerateResponse, responses=ERRORS)
async def generate(
    request: Request, parts: Parts, body: Annotated[GenerateBody, Body(openapi_examples=BODIES)]
) -> Response:
    """Goes on from a prompt, character by character, with the newest checkpoint or a named one.

    The answer names checkpoint, step and seed: sent back as `model` and `seed`, they give the same text.
    """
    return await _answer(request, parts, body)


@router.get("/generate", summary="Write text, by a link", response_model=GenerateResponse, responses=ERRORS)
async def generate_by_link(
    request: Request, parts: Parts, query: Annotated[GenerateRequest, Query()]
) -> Response:
    """The same as POST /generate, with the fields in the address; `stop` may be repeated."""
    return await _answer(request, parts, query)


@dataclass(frozen=True)
class Order:
    """A request with its defaults filled in, within every limit that does not depend on the model."""

    prompt: str
    length: int
    sampling: SamplingConfig
    seed: int
    stop: tuple[str, ...]

    @classmethod
    def of(cls, request: GenerateRequest, settings: Settings) -> Order:
        """Raises InvalidRequestError, with the limit and the value."""
        given = {name: getattr(request, name) for name in ("temperature", "top_k", "top_p")}
        stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
        order = cls(
            prompt=request.prompt or "",
            length=settings.default_length if request.length is None else request.length,
            sampling=SamplingConfig(**{name: value for name, value in given.items() if value is not None}),
            seed=secrets.randbits(SEED_BITS) if request.seed is None else request.seed,
            stop=tuple(stop),
        )
        order._check(settings)
        return order

    def _check(self, settings: Settings) -> None:
        if self.length > settings.max_length:
            raise InvalidRequestError("length", f"must be <= {settings.max_length}. Given: {self.length}")
        if len(self.prompt) > settings.max_prompt:
            raise InvalidRequestError(
                "prompt", f"must have at most {settings.max_prompt} characters. Given: {len(self.prompt)}"
            )
        if len(self.stop) > settings.max_stop:
            raise InvalidRequestError(
                "stop", f"must hold at most {settings.max_stop} strings. Given: {len(self.stop)}"
            )
        for text in self.stop:
            if len(text) > settings.max_stop_length:
                raise InvalidRequestError(
                    "stop",
                    f"must hold strings of at most {settings.max_stop_length} characters. "
                    f"Given: {shortened(text)}",
                )


async def _answer(request: Request, parts: Services, asked: GenerateRequest) -> Response:
    order = Order.of(asked, parts.settings)
    model = await parts.model(asked.model)
    row = Generation(
        model.vocabulary, order.prompt, order.length, order.sampling, order.seed, stop=order.stop
    )
    job = Job(model.decoder, [row], parts.settings.deadline_seconds)
    if await while_connected(request, parts.engine.run(job)) is None:
        return Response(status_code=CLIENT_GONE)
    return Response(describe(order, model, row).model_dump_json(), media_type="application/json")


def describe(order: Order, model: LoadedModel, row: Generation) -> GenerateResponse:
    """The answer for a finished row."""
    return GenerateResponse(
        text=row.text,
        prompt=order.prompt,
        length=len(row.text),
        finish_reason="stop" if row.finish_reason == "stop" else "length",
        seed=order.seed,
        model=model.id,
        step=model.step,
        digest=model.digest,
        losses=Losses(**{name: model.progress.get(name) for name in Losses.model_fields}),
    )


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result | None:
    """The result of `work`; None, and `work` cancelled, if the client goes away before."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        gone.cancel()
        working.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
