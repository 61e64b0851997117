"""From TGI's requests to orders, and from rows to TGI's answers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from app.api.pieces import Items
from app.api.tgi.schemas import TgiParameters, TgiRequest
from app.engine.job import Chunk
from app.engine.loaded_model import LoadedModel
from app.engine.order import Order
from app.errors import InvalidRequestError
from app.settings import Settings
from model.generation import Row

CHOOSING = ("temperature", "top_k", "top_p", "typical_p")
SAMPLING = (*CHOOSING, "repetition_penalty", "frequency_penalty")
NAMES = {"prompt": "inputs", "length": "max_new_tokens", "logprobs": "top_n_tokens"}


class TgiOrder:
    """A request by one of TGI's clients, and its answers."""

    def __init__(self, body: TgiRequest, model: LoadedModel, settings: Settings, streamed: bool) -> None:
        """Raises InvalidRequestError, UnknownInFieldError."""
        self.parameters = given = body.parameters or TgiParameters()
        if streamed and (given.best_of or 1) > 1:
            raise InvalidRequestError("best_of", f"must be 1 for a stream. Given: {given.best_of}")
        self.inputs = body.inputs[-given.truncate :] if given.truncate else body.inputs
        sampling = {name: getattr(given, name) for name in SAMPLING}
        if given.do_sample is False and all(sampling[name] is None for name in CHOOSING):
            sampling["temperature"] = 0
        # every event of a stream has the log-probability of its character
        told = streamed or given.details or given.decoder_input_details or given.top_n_tokens
        self.order = Order.of(
            settings,
            [self.inputs],
            given.max_new_tokens,
            sampling,
            given.seed,
            given.stop,
            best_of=given.best_of,
            logprobs=(given.top_n_tokens or 0) if told else None,
            names=NAMES,
            unknown=given.unknown,
        ).read_by(model, settings)

    def answer(self, rows: list[Row]) -> dict[str, Any]:
        """The answer for finished rows, in the form of a TgiResponse, the most likely text first."""
        best = self.order.chosen(rows)[0][0]
        given = self.parameters
        response: dict[str, Any] = {"generated_text": self.whole(best)}
        if given.details or given.decoder_input_details:
            details = response["details"] = self._details(best)
            others = [row for row in rows if row is not best]
            if others:
                details["best_of_sequences"] = [
                    {"generated_text": self.whole(row), **self._details(row)} for row in others
                ]
        return response | self.order.changed_field

    def events(self, row: Row) -> TgiStream:
        """The stream of `row`."""
        return TgiStream(self, row)

    def whole(self, row: Row) -> str:
        """The text, after the prompt if that was requested."""
        return self.inputs + row.text if self.parameters.return_full_text else row.text

    def _details(self, row: Row) -> dict[str, Any]:
        given = self.parameters
        read = len(row.prompt) if given.decoder_input_details and self.order.prompts[0] else 0
        details: dict[str, Any] = {
            **self.summary(row),
            "prefill": Items(read, partial(_prefill, row)),
            "tokens": Items(len(row.ids), partial(self.tokens, row)),
        }
        if given.top_n_tokens:
            details["top_tokens"] = Items(len(row.ids), partial(self.alternatives, row))
        return details

    def summary(self, row: Row) -> dict[str, Any]:
        """How a row ended."""
        return {
            "finish_reason": "stop_sequence" if row.finish_reason == "stop" else "length",
            "generated_tokens": len(row.ids),
            "seed": self.order.seed,
        }

    def tokens(self, row: Row, begin: int, end: int) -> list[dict[str, Any]]:
        """Characters `begin` to `end` of the text, each in the form of a TgiToken."""
        logprobs = row.logprobs_of[begin:end].tolist()
        return list(map(_token, row.ids[begin:end], row.text[begin:end], logprobs))

    def alternatives(self, row: Row, begin: int, end: int) -> list[list[dict[str, Any]]]:
        """The most likely characters at each of these positions."""
        before, characters = len(row.prompt_logprobs), row.vocabulary.characters
        return [
            [_token(other, characters[other], logprob) for other, logprob in likeliest]
            for likeliest in row.likeliest(before + begin, before + end)
        ]


class TgiStream:
    """One event per character. The last one also has the whole text, so one character is always held back."""

    def __init__(self, order: TgiOrder, row: Row) -> None:
        self._order, self._row, self._told = order, row, 0

    def encode(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        """The events that can be sent after a chunk."""
        known = chunk.start + len(chunk.text)
        yield from self._events(self._told, known - 1)
        self._told = max(self._told, known - 1)
        if chunk.finish_reason is not None:
            yield self._last()

    def _events(self, begin: int, end: int) -> Iterator[dict[str, Any]]:
        for at, token in enumerate(self._order.tokens(self._row, begin, end), begin):
            event = {"index": at + 1, "token": token, "generated_text": None, "details": None}
            if self._order.parameters.top_n_tokens:
                event["top_tokens"] = self._order.alternatives(self._row, at, at + 1)[0]
            yield event

    def _last(self) -> dict[str, Any]:
        row = self._row
        if self._told < len(row.ids):
            event = next(self._events(self._told, self._told + 1))
        else:  # a stop string came before any character
            nothing = _token(0, "", None) | {"special": True}
            event = {"index": self._told + 1, "token": nothing}
        summary = self._order.summary(row) | {"input_length": len(self._order.order.prompts[0])}
        whole = {"generated_text": self._order.whole(row), "details": summary}
        return event | whole | self._order.order.changed_field


def _token(number: int, text: str, logprob: float | None) -> dict[str, Any]:
    return {"id": number, "text": text, "logprob": logprob, "special": False}


def _prefill(row: Row, begin: int, end: int) -> list[dict[str, Any]]:
    """Characters of the prompt; the first has no log-probability."""
    texts = [
        {"id": number, "text": row.vocabulary.characters[number]} for number in row.prompt[begin:end].tolist()
    ]
    logprobs = row.prompt_logprobs[max(0, begin - 1) : end - 1].tolist()
    for text, logprob in zip(texts[len(texts) - len(logprobs) :], logprobs, strict=True):
        text["logprob"] = logprob
    return texts
