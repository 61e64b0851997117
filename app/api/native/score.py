"""POST /score: the probability of a text, character by character, according to one or more models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.answering import answer
from app.api.native.text_schemas import ModelScore, ScoreRequest, ScoreResponse
from app.api.openapi import errors
from app.api.pieces import Items, utf8_json
from app.api.services import ServicesDep
from app.engine.job import Job
from app.engine.loaded_model import LoadedModel
from app.engine.order import Order
from app.engine.unknown import readable
from app.errors import InvalidRequestError, UnknownInFieldError
from app.server.problems import problem_of
from app.settings import Settings
from model.errors import CharloomError, UnknownCharacterError
from model.generation import Row

CHANGED = {"text", "changed_characters"}  # fields that a score has only if characters may be changed
NAMES = {"prompt": "text", "logprobs": "top"}

router = APIRouter(tags=["text"])


@router.post(
    "/score",
    summary="How likely is this text?",
    response_model=ScoreResponse,
    responses=errors(400, 404, 413, 422, 429, 503, 504),
)
async def score(request: Request, services: ServicesDep, asked: ScoreRequest) -> Response:
    """The log-probability and the rank of every character of a text, and their sum in bits.

    With several models, `likeliest` is the one that gives the text the highest probability. For a model that
    has never seen one of the characters, the answer has the reason instead of a score.
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
    order.check_logprobs(services.settings, len(names))
    models = [await services.model(name) for name in names]
    readings = [_Reading(asked, model, order) for model in models]
    able = [reading for reading in readings if reading.refusal is None]
    if not able and readings[0].refusal:
        raise readings[0].refusal
    seconds = services.settings.deadline_seconds

    def jobs() -> list[Job]:
        return [reading.order.job(reading.model, seconds) for reading in able]

    def build(rows: list[list[Row]]) -> dict[str, Any]:
        scored = iter(rows)
        scores = [
            _described(reading, asked.top or 0, next(scored)[0])
            if reading.refusal is None
            else _unable(reading.model, reading.refusal)
            for reading in readings
        ]
        return {
            "text": asked.text,
            "prompt": asked.prompt or "",
            "likeliest": _likeliest(scores),
            "scores": scores,
        }

    return await answer(request, services, order.size * len(names), jobs, build, utf8_json)


class _Reading:
    """The text as one model reads it, or the reason why it cannot."""

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


def _unable(model: LoadedModel, refusal: CharloomError) -> dict[str, Any]:
    told = {"model": model.id, "step": model.step, "digest": model.digest}
    return ModelScore(**told, error=problem_of(refusal).message).model_dump(exclude=CHANGED)


def _described(reading: _Reading, alternatives: int, row: Row) -> dict[str, Any]:
    """The score in the form of a ModelScore, with its lists as Items."""
    model, before = reading.model, len(reading.prompt)
    known = row.prompt_logprobs[max(0, before - 1) :].tolist()
    bits = -math.fsum(known) / math.log(2)
    score = ModelScore(
        model=model.id,
        step=model.step,
        digest=model.digest,
        bits=bits,
        bits_per_character=bits / len(known) if known else None,
        nats_per_character=-math.fsum(known) / len(known) if known else None,
    ).model_dump(exclude=CHANGED)

    def told(values: Callable[[int, int], list[Any]]) -> Items:
        """The values as Items; without a prompt, the first character has none."""

        def make(begin: int, end: int) -> list[Any]:
            first = before + begin - 1
            return [*([None] if first < 0 else []), *values(max(0, first), before + end - 1)]

        return Items(len(reading.text), make)

    def likeliest(begin: int, end: int) -> list[dict[str, float]]:
        characters = row.vocabulary.characters
        return [{characters[i]: value for i, value in others} for others in row.likeliest(begin, end)]

    score["logprobs"] = told(lambda begin, end: row.prompt_logprobs[begin:end].tolist())
    score["ranks"] = told(lambda begin, end: row.ranks[begin:end].tolist())
    score["top"] = told(likeliest) if alternatives else None
    if reading.order.unknown != "refuse":
        score["text"] = reading.text if reading.changed else None
        score["changed_characters"] = reading.changed
    return score


def _likeliest(scores: Sequence[dict[str, Any]]) -> str | None:
    scored = [(one["bits"], one["model"]) for one in scores if one["bits"] is not None]
    return str(min(scored)[1]) if scored else None
