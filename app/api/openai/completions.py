"""POST /v1/completions, as OpenAI's clients call it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.openai.answers import Envelope, answer_stream, answer_whole, bounded, include_usage, order_of
from app.api.openai.schemas import Completion, CompletionRequest
from app.api.openapi import openai_errors, streamed
from app.api.services import ServicesDep
from app.engine.job import Chunk
from app.engine.order import Order, Prompt
from app.errors import InvalidRequestError
from model.generation import Row

NAMES = {"length": "max_tokens"}
ERRORS = openai_errors(400, 404, 413, 503, 504)

router = APIRouter(tags=["OpenAI"])


@router.post("/v1/completions", summary="Complete", response_model=Completion, responses=ERRORS | streamed())
async def completions(request: Request, services: ServicesDep, asked: CompletionRequest) -> Response:
    """Goes on from a prompt, or from several. A token is a character, an id its place in the vocabulary."""
    model = await services.model_of_client(asked.model)
    if asked.max_tokens == 0 and not asked.echo:
        raise InvalidRequestError("max_tokens", "must be >= 1, or 0 with echo. Given: 0")
    prompts = _prompts(asked)
    length = asked.max_tokens
    order = order_of(asked, model, services.settings, prompts, NAMES, length, asked.logprobs, asked.best_of)
    envelope = Envelope.new("cmpl", "text_completion", order, model)
    usage = include_usage(asked)
    choices = _Choices(asked, order)
    if asked.stream:
        return answer_stream(services, envelope, choices.of_chunk, usage)
    return await answer_whole(request, services, envelope, choices.of_row)


class _Choices:
    """Rows, and chunks of rows, as choices."""

    def __init__(self, asked: CompletionRequest, order: Order) -> None:
        self.logprobs, self.echo = asked.logprobs, bool(asked.echo)
        self._prompts, self._n = order.prompts, order.n

    def of_row(self, index: int, row: Row) -> dict[str, Any]:
        begin = -self._echoed(index)
        return self._choice(index, row, begin, len(row.ids), row.finish_reason)

    def of_chunk(self, chunk: Chunk, row: Row) -> Iterator[dict[str, Any]]:
        """The text, then the reason of the end without text."""
        begin, end = chunk.start or -self._echoed(chunk.choice), chunk.start + len(chunk.text)
        if begin < end:
            yield self._choice(chunk.choice, row, begin, end, None)
        if chunk.finish_reason is not None:
            yield {
                "index": chunk.choice,
                "text": "",
                "logprobs": None,
                "finish_reason": chunk.finish_reason,
            }

    def _echoed(self, index: int) -> int:
        """How many characters of the prompt come before the text."""
        return len(self._prompts[index // self._n]) if self.echo else 0

    def _choice(
        self, index: int, row: Row, begin: int, end: int, finish_reason: str | None
    ) -> dict[str, Any]:
        """Characters `begin` to `end` of the text; its prompt's are those before 0."""
        prompt = row.vocabulary.decode(row.prompt[begin:]) if begin < 0 else ""
        text = prompt + row.text[max(0, begin) : end]
        offset = begin + self._echoed(index)
        logprobs = None if self.logprobs is None else self._logprobs(row, text, begin, offset)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

    def _logprobs(self, row: Row, text: str, begin: int, offset: int) -> dict[str, Any]:
        read = len(row.prompt_logprobs)
        known: list[float | None] = [None, *row.prompt_logprobs, *row.logprobs_of]
        places = range(begin + read + 1, begin + read + 1 + len(text))  # in `known`
        values = [None if (value := known[at]) is None else bounded(value) for at in places]
        top = None
        if self.logprobs:
            top = [
                {
                    **{row.vocabulary.decode([i]): bounded(other) for i, other in row.top[at - 1]},
                    character: value,
                }
                if value is not None
                else None
                for character, value, at in zip(text, values, places, strict=True)
            ]
        return {
            "tokens": list(text),
            "token_logprobs": values,
            "top_logprobs": top,
            "text_offset": list(range(offset, offset + len(text))),
        }


def _prompts(asked: CompletionRequest) -> list[Prompt]:
    given = asked.prompt
    if given is None or isinstance(given, str):
        return [given or ""]
    ids = [one for one in given if isinstance(one, int)]
    return [ids] if ids else [one for one in given if not isinstance(one, int)]
