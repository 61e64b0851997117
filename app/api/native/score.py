"""POST /score: how likely a text is, character by character, to one network or to several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from fastapi import APIRouter, Request, Response

from app.api.answering import gone, write_all
from app.api.native.text_schemas import ModelScore, ScoreRequest, ScoreResponse
from app.api.openapi import errors
from app.api.services import ServicesDep
from app.engine.loaded_model import LoadedModel
from app.engine.order import Order
from app.engine.unknown import readable
from app.errors import InvalidRequestError, UnknownInFieldError
from app.server.problems import problem_of
from app.settings import Settings
from model.errors import CharloomError, UnknownCharacterError
from model.generation import Row

NAMES = {"prompt": "text"}

router = APIRouter(tags=["text"])


@router.post(
    "/score",
    summary="How likely is this text?",
    response_model=ScoreResponse,
    responses=errors(400, 404, 413, 422, 429, 503, 504),
)
async def score(request: Request, services: ServicesDep, asked: ScoreRequest) -> Response:
    """The log-probability and the rank of every character of a text, and what they sum to in bits.

    With several models it answers which of them would rather have written it: `likeliest`. A model that has
    never seen one of the characters answers with the reason instead of a score.
    """
    names = _names(asked, services.settings)
    order = Order.of(
        services.settings,
        [(asked.prompt or "") + asked.text],
        0,
        logprobs=asked.top or 0,
        names=NAMES,
        unknown=asked.unknown,
    )
    models = [await services.model(name) for name in names]
    readings = [_Reading(asked, model, order) for model in models]
    able = [reading for reading in readings if reading.refusal is None]
    if not able and readings[0].refusal:
        raise readings[0].refusal
    seconds = services.settings.deadline_seconds
    rows = await write_all(request, services, [reading.order.job(reading.model, seconds) for reading in able])
    if rows is None:
        return gone()
    scored = iter(rows)
    scores = [
        _described(reading, asked.top or 0, next(scored)[0])
        if reading.refusal is None
        else _unable(reading.model, reading.refusal)
        for reading in readings
    ]
    answer = ScoreResponse(
        text=asked.text, prompt=asked.prompt or "", likeliest=_likeliest(scores), scores=scores
    )
    # of every score, as these fields are those of the request's own mode
    changed = () if order.unknown != "refuse" else ("text", "changed_characters")
    exclude = {"scores": {"__all__": set(changed)}}
    return Response(answer.model_dump_json(exclude=exclude), media_type="application/json")


class _Reading:
    """The text as one model reads it, or why it cannot."""

    def __init__(self, asked: ScoreRequest, model: LoadedModel, order: Order) -> None:
        self.model = model
        self.refusal: CharloomError | None = None
        self.prompt = self.text = ""
        self.changed = 0
        try:
            self.prompt, prompt_changed = self._read(asked.prompt or "", "prompt", order)
            self.text, text_changed = self._read(asked.text, "text", order)
        except UnknownInFieldError as error:
            self.refusal = error
            return
        if not self.text:
            self.refusal = InvalidRequestError("text", f"has no character that {model.id} knows")
        self.changed = prompt_changed + text_changed
        self.order = replace(order, prompts=(self.prompt + self.text,))

    def _read(self, text: str, field: str, order: Order) -> tuple[str, int]:
        try:
            return readable(text, self.model.vocabulary, order.unknown)
        except UnknownCharacterError as error:
            raise UnknownInFieldError(error.unknown, field, self.model.id) from None


def _names(asked: ScoreRequest, settings: Settings) -> Sequence[str | None]:
    if asked.models is None:
        return [asked.model]
    if asked.model is not None:
        raise InvalidRequestError("models", "cannot be given together with model")
    if len(asked.models) > settings.max_models:
        raise InvalidRequestError(
            "models", f"must name at most {settings.max_models}. Given: {len(asked.models)}"
        )
    return asked.models


def _unable(model: LoadedModel, refusal: CharloomError) -> ModelScore:
    return ModelScore(model=model.id, step=model.step, digest=model.digest, error=problem_of(refusal).message)


def _described(reading: _Reading, alternatives: int, row: Row) -> ModelScore:
    model, before = reading.model, len(reading.prompt)
    logprobs: list[float | None] = [None, *row.prompt_logprobs][before:]
    known = [value for value in logprobs if value is not None]
    bits = -math.fsum(known) / math.log(2)
    top = None
    if alternatives:
        top = [
            None if at == 0 else {row.vocabulary.decode([i]): value for i, value in row.top[at - 1]}
            for at in range(before, before + len(reading.text))
        ]
    return ModelScore(
        model=model.id,
        step=model.step,
        digest=model.digest,
        bits=bits,
        bits_per_character=bits / len(known) if known else None,
        nats_per_character=-math.fsum(known) / len(known) if known else None,
        logprobs=logprobs,
        ranks=[None, *row.ranks][before:],
        top=top,
        text=reading.text if reading.changed else None,
        changed_characters=reading.changed,
    )


def _likeliest(scores: Sequence[ModelScore]) -> str | None:
    scored = [(one.bits, one.model) for one in scores if one.bits is not None]
    return min(scored)[1] if scored else None
