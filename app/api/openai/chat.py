"""POST /v1/chat/completions: the messages of a conversation become one prompt."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.openai.answers import (
    Envelope,
    answer_stream,
    answer_whole,
    bounded,
    include_usage,
    joined,
    order_of,
)
from app.api.openai.schemas import ChatCompletion, ChatRequest
from app.api.openapi import openai_errors, streamed
from app.api.pieces import Items
from app.api.services import ServicesDep
from app.engine.job import Chunk
from app.errors import InvalidRequestError
from model.generation import Row

NAMES = {"length": "max_tokens", "prompt": "messages", "logprobs": "top_logprobs"}
ERRORS = openai_errors(400, 404, 413, 503, 504)

router = APIRouter(tags=["OpenAI"])


@router.post(
    "/v1/chat/completions", summary="Chat", response_model=ChatCompletion, responses=ERRORS | streamed()
)
async def chat(request: Request, services: ServicesDep, asked: ChatRequest) -> Response:
    """An adapter for tools that only support chats: the network continues text, it does not converse.

    The prompt is the texts of all messages, joined by line breaks, without the roles; the network continues
    the last one.
    """
    model = await services.model_of_client(asked.model)
    length = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    if length == 0:
        raise InvalidRequestError("max_tokens", "must be >= 1. Given: 0")
    if asked.top_logprobs and not asked.logprobs:
        raise InvalidRequestError("top_logprobs", "is only allowed with logprobs=true")
    logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
    order = order_of(
        asked, model, services.settings, [joined(asked.messages, model.vocabulary)], NAMES, length, logprobs
    )
    usage = include_usage(asked)
    if asked.stream:
        envelope = Envelope.new("chatcmpl", "chat.completion.chunk", order, model)
        return answer_stream(services, envelope, _deltas, usage)
    return await answer_whole(
        request, services, Envelope.new("chatcmpl", "chat.completion", order, model), _choice
    )


def _choice(index: int, row: Row) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": row.text, "refusal": None},
        "logprobs": None
        if row.logprobs is None
        else {"content": Items(len(row.ids), partial(_entries, row)), "refusal": None},
        "finish_reason": row.finish_reason,
    }


def _deltas(chunk: Chunk, row: Row) -> Iterator[dict[str, Any]]:
    """As in OpenAI's streams: first the role with empty text, then text, then the finish reason without text.

    Clients may append the log-probabilities of every event, and may stop reading at the finish reason.
    """
    if chunk.start == 0:
        yield _delta(chunk, {"role": "assistant", "content": ""})
    if chunk.text:
        content = None if row.logprobs is None else _entries(row, chunk.start, chunk.start + len(chunk.text))
        logprobs = None if content is None else {"content": content, "refusal": None}
        yield _delta(chunk, {"content": chunk.text}, logprobs)
    if chunk.finish_reason is not None:
        yield _delta(chunk, {}, None, chunk.finish_reason)


def _delta(
    chunk: Chunk,
    delta: dict[str, str],
    logprobs: dict[str, Any] | None = None,
    finish_reason: str | None = None,
) -> dict[str, Any]:
    return {"index": chunk.choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def _entries(row: Row, begin: int, end: int) -> list[dict[str, Any]]:
    """Characters `begin` to `end` of the text with their log-probabilities and alternatives."""
    before, characters = len(row.prompt_logprobs), row.vocabulary.characters
    return [
        _entry(character, logprob)
        | {"top_logprobs": [_entry(characters[other], value) for other, value in likeliest]}
        for character, logprob, likeliest in zip(
            row.text[begin:end],
            row.logprobs_of[begin:end].tolist(),
            row.likeliest(before + begin, before + end),
            strict=True,
        )
    ]


def _entry(character: str, logprob: float) -> dict[str, Any]:
    return {
        "token": character,
        "logprob": bounded(logprob),
        "bytes": list(character.encode("utf-8", "surrogatepass")),
    }
