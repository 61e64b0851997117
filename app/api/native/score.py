"""POST /score: how likely a text is, character by character, to one network or to several."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from app.api.answering import gone, write_all
from app.api.native.text_schemas import ModelScore, ScoreRequest, ScoreResponse
from app.api.openapi import errors
from app.api.services import ServicesDep
from app.engine.models import LoadedModel
from app.engine.order import Order
from app.errors import InvalidRequestError, UnknownInFieldError
from app.server.problems import problem_of
from app.settings import Settings
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
        services.settings, [(asked.prompt or "") + asked.text], 0, logprobs=asked.top or 0, names=NAMES
    )
    models = [await services.model(name) for name in names]
    refusals = [_refusal(asked, model) for model in models]
    if all(refusals):
        raise next(filter(None, refusals))
    seconds = services.settings.deadline_seconds
    knowing = [model for model, refusal in zip(models, refusals, strict=True) if refusal is None]
    rows = await write_all(request, services, [order.job(model, seconds) for model in knowing])
    if rows is None:
        return gone()
    scored = iter(rows)
    scores = [
        _described(model, asked, next(scored)) if refusal is None else _unable(model, refusal)
        for model, refusal in zip(models, refusals, strict=True)
    ]
    answer = ScoreResponse(
        text=asked.text, prompt=asked.prompt or "", likeliest=_likeliest(scores), scores=scores
    )
    return Response(answer.model_dump_json(), media_type="application/json")


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


def _refusal(asked: ScoreRequest, model: LoadedModel) -> UnknownInFieldError | None:
    for field, text in (("prompt", asked.prompt or ""), ("text", asked.text)):
        if unknown := model.vocabulary.unknown(text):
            return UnknownInFieldError(unknown, field, model.id)
    return None


def _unable(model: LoadedModel, refusal: UnknownInFieldError) -> ModelScore:
    return ModelScore(model=model.id, step=model.step, digest=model.digest, error=problem_of(refusal).message)


def _described(model: LoadedModel, asked: ScoreRequest, rows: list[Row]) -> ModelScore:
    row, before = rows[0], len(asked.prompt or "")
    logprobs: list[float | None] = [None, *row.prompt_logprobs][before:]
    known = [value for value in logprobs if value is not None]
    bits = -math.fsum(known) / math.log(2)
    top = None
    if asked.top:
        top = [
            None if at == 0 else {row.vocabulary.decode([i]): value for i, value in row.top[at - 1]}
            for at in range(before, before + len(asked.text))
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
    )


def _likeliest(scores: Sequence[ModelScore]) -> str | None:
    scored = [(one.bits, one.model) for one in scores if one.bits is not None]
    return min(scored)[1] if scored else None
