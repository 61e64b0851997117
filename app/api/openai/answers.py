"""What OpenAI's two text routes share: from a request to an order, and from rows to an answer."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request, Response

from app.api.answering import answer, stream
from app.api.openai.schemas import Message, WritingRequest
from app.api.pieces import ascii_json
from app.api.services import Services
from app.engine.job import Chunk, Job
from app.engine.loaded_model import LoadedModel
from app.engine.order import SAMPLING, Order, Prompt
from app.errors import InvalidRequestError, shortened
from app.server.error_formats import Family
from app.server.streaming import DONE, event
from app.settings import Settings
from app.store.capacity import kernel
from model.generation import Row
from model.vocabulary import Vocabulary

LOWEST_LOGPROB = -9999.0  # JSON has no infinity

ChoiceOf = Callable[[int, Row], dict[str, Any]]
ChoicesOf = Callable[[Chunk, Row], Iterator[dict[str, Any]]]


def order_of(
    asked: WritingRequest,
    model: LoadedModel,
    settings: Settings,
    prompts: Sequence[Prompt],
    names: Mapping[str, str],
    length: int | None,
    logprobs: int | None,
    best_of: int | None = None,
) -> Order:
    """The order of a request, read by the model. Raises InvalidRequestError, UnknownInFieldError."""
    sampling = {name: getattr(asked, name) for name in SAMPLING}
    bias = {_id_of(key): value for key, value in (asked.logit_bias or {}).items()}  # "1" and "01" are equal
    order = Order.of(
        settings,
        prompts,
        length,
        sampling | {"logit_bias": tuple(bias.items())},
        asked.seed,
        asked.stop,
        asked.n,
        best_of,
        logprobs,
        names,
        asked.unknown,
    )
    if asked.stream and order.best_of > order.n:
        raise InvalidRequestError("best_of", f"must be n for a stream. Given: {order.best_of}")
    return order.read_by(model, settings)


def joined(messages: Sequence[Message], vocabulary: Vocabulary) -> str:
    """The texts of a chat's messages joined by line breaks, or by spaces if the model has no line break."""
    separator = next(text for text in ("\n", " ", "") if not vocabulary.unknown(text))
    return separator.join(map(_text_of, messages))


def _text_of(message: Message) -> str:
    if isinstance(message.content, list):
        return "".join(part.text for part in message.content)
    return message.content or ""


@dataclass(frozen=True)
class Envelope:
    """The fields of every answer, and of every chunk of a stream, other than its choices."""

    kind: str
    order: Order
    model: LoadedModel
    id: str
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def new(cls, prefix: str, kind: str, order: Order, model: LoadedModel) -> Envelope:
        return cls(kind, order, model, f"{prefix}-{uuid.uuid4().hex}")

    def around(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": self.kind,
            "created": self.created,
            "model": self.model.id,
            "system_fingerprint": f"{self.model.id}-{self.model.digest[:12]}-{kernel()}",
            "seed": self.order.seed,
            **self.order.changed_field,
            "choices": choices,
            **more,
        }

    def usage(self, rows: Sequence[Row]) -> dict[str, int]:
        """Token counts; a prompt counts once, whatever the number of its texts."""
        read = sum(map(len, self.order.prompts))
        written = sum(len(row.ids) for row in rows)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


async def answer_whole(
    request: Request, services: Services, envelope: Envelope, choice: ChoiceOf
) -> Response:
    """Answer with all texts when they are finished."""
    order = envelope.order

    def jobs() -> list[Job]:
        return [order.job(envelope.model, services.settings.deadline_seconds)]

    def build(rows: list[list[Row]]) -> dict[str, Any]:
        chosen = [row for group in order.chosen(rows[0]) for row in group]
        choices = [choice(index, row) for index, row in enumerate(chosen)]
        return envelope.around(choices, usage=envelope.usage(rows[0]))

    return await answer(request, services, order.size, jobs, build, ascii_json)


def answer_stream(
    services: Services, envelope: Envelope, choices: ChoicesOf, include_usage: bool
) -> Response:
    """Stream the texts while they are generated; the stream always ends with `[DONE]`."""
    job = envelope.order.job(envelope.model, services.settings.deadline_seconds, streamed=True)
    empty: dict[str, Any] = {"usage": None} if include_usage else {}

    def encode(chunk: Chunk) -> Iterator[dict[str, Any]]:
        for choice in choices(chunk, job.rows[chunk.choice]):
            yield envelope.around([choice], **empty)

    def end() -> Iterator[bytes]:
        if include_usage:
            yield event(envelope.around([], usage=envelope.usage(job.rows)))
        yield DONE

    return stream(services, job, encode, end, Family.OPENAI)


def bounded(logprob: float) -> float:
    """A log-probability that JSON can represent."""
    return max(logprob, LOWEST_LOGPROB)


def include_usage(asked: WritingRequest) -> bool:
    """Whether to stream the usage. Raises InvalidRequestError if there are stream options but no stream."""
    if asked.stream_options is None:
        return False
    if not asked.stream:
        raise InvalidRequestError("stream_options", "is only allowed with stream=true")
    return bool(asked.stream_options.include_usage)


def _id_of(key: str) -> int:
    if not (key.isascii() and key.isdecimal() and len(key) < 10):
        raise InvalidRequestError("logit_bias", f"must hold ids of characters. Given: {shortened(key)}")
    return int(key)
