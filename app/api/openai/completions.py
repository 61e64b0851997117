"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.openai.answers import Envelope, answer_stream, answer_whole, bounded, include_usage, order_of
from app.api.openai.schemas import Completion, CompletionRequest
from app.api.openapi import openai_errors, streamed
from app.api.pieces import Items
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
    """Continue one prompt or several. A token is a character; its id is its position in the vocabulary."""
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


Make = Callable[[int, int], Sequence[Any]]


class _Choices:
    """Converts rows, and chunks of rows, to choices."""

    def __init__(self, asked: CompletionRequest, order: Order) -> None:
        self.logprobs, self.echo = asked.logprobs, bool(asked.echo)
        self._prompts, self._n = order.prompts, order.n

    def of_row(self, index: int, row: Row) -> dict[str, Any]:
        begin = -self._echoed(index)
        part = _Part(row, begin, len(row.ids), -begin)
        return self._choice(index, part, row.finish_reason, lambda make: Items(part.count, make))

    def of_chunk(self, chunk: Chunk, row: Row) -> Iterator[dict[str, Any]]:
        """A choice with the text, then one with the finish reason and no text."""
        echoed = self._echoed(chunk.choice)
        part = _Part(row, chunk.start or -echoed, chunk.start + len(chunk.text), echoed)
        if part.count:
            yield self._choice(chunk.choice, part, None, lambda make: make(0, part.count))
        if chunk.finish_reason is not None:
            yield {
                "index": chunk.choice,
                "text": "",
                "logprobs": None,
                "finish_reason": chunk.finish_reason,
            }

    def _echoed(self, index: int) -> int:
        """How many characters of the prompt the answer repeats before the text."""
        return len(self._prompts[index // self._n]) if self.echo else 0

    def _choice(
        self, index: int, part: _Part, finish_reason: str | None, listed: Callable[[Make], Any]
    ) -> dict[str, Any]:
        logprobs = None
        if self.logprobs is not None:
            logprobs = {
                "tokens": listed(part.tokens),
                "token_logprobs": listed(part.logprobs),
                "top_logprobs": listed(part.top) if self.logprobs else None,
                "text_offset": listed(part.offsets),
            }
        return {"index": index, "text": part.text, "logprobs": logprobs, "finish_reason": finish_reason}


class _Part:
    """Characters `begin` to `end` of a text and their log-probabilities; the prompt has negative positions.

    Args:
        echoed: number of characters of the prompt in the answer.
    """

    def __init__(self, row: Row, begin: int, end: int, echoed: int) -> None:
        self.row, self.begin, self.echoed = row, begin, echoed
        prompt = row.vocabulary.decode(row.prompt[begin:]) if begin < 0 else ""
        self.text = prompt + row.text[max(0, begin) : end]
        self.count = len(self.text)
        # index of this part's first character among those with a log-probability
        self._place = begin + len(row.prompt) - 1

    def tokens(self, begin: int, end: int) -> list[str]:
        """Characters `begin` to `end` of this part; the other methods return their properties."""
        return list(self.text[begin:end])

    def logprobs(self, begin: int, end: int) -> list[float | None]:
        known = self.row.all_logprobs[max(0, self._place + begin) : self._place + end].tolist()
        unknown = [None] if self._place + begin < 0 else []  # the first character
        return [*unknown, *map(bounded, known)]

    def top(self, begin: int, end: int) -> list[dict[str, float] | None]:
        characters = self.row.vocabulary.characters
        likeliest = self.row.likeliest(max(0, self._place + begin), self._place + end)
        of_first = [None] if self._place + begin < 0 else []
        return [
            None
            if others is None or value is None
            else {**{characters[other]: bounded(logprob) for other, logprob in others}, character: value}
            for character, value, others in zip(
                self.text[begin:end], self.logprobs(begin, end), [*of_first, *likeliest], strict=True
            )
        ]

    def offsets(self, begin: int, end: int) -> list[int]:
        first = self.begin + self.echoed
        return list(range(first + begin, first + end))


def _prompts(asked: CompletionRequest) -> list[Prompt]:
    given = asked.prompt
    if given is None or isinstance(given, str):
        return [given or ""]
    ids = [one for one in given if isinstance(one, int)]
    return [ids] if ids else [one for one in given if not isinstance(one, int)]
