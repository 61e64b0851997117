"""Between TGI's JSON and orders: what its parameters mean here, and rows in its shapes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from app.api.tgi.schemas import (
    TgiDetails,
    TgiParameters,
    TgiPrefillToken,
    TgiRequest,
    TgiResponse,
    TgiSequence,
    TgiToken,
)
from app.engine.job import Chunk
from app.engine.loaded_model import LoadedModel
from app.engine.order import Order
from app.errors import InvalidRequestError
from app.settings import Settings
from model.generation import Row

CHOOSING = ("temperature", "top_k", "top_p", "typical_p")
SAMPLING = (*CHOOSING, "repetition_penalty", "frequency_penalty")
NAMES = {"prompt": "inputs", "length": "max_new_tokens"}


class TgiOrder:
    """A request of TGI's clients, and its answers."""

    def __init__(self, body: TgiRequest, model: LoadedModel, settings: Settings, streamed: bool) -> None:
        """Raises InvalidRequestError, UnknownInFieldError."""
        self.parameters = given = body.parameters or TgiParameters()
        if streamed and (given.best_of or 1) > 1:
            raise InvalidRequestError("best_of", f"must be 1 for a stream. Given: {given.best_of}")
        self.inputs = body.inputs[-given.truncate :] if given.truncate else body.inputs
        sampling = {name: getattr(given, name) for name in SAMPLING}
        if given.do_sample is False and all(sampling[name] is None for name in CHOOSING):
            sampling["temperature"] = 0
        # every event of a stream tells its character's log-probability
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

    def answer(self, rows: list[Row]) -> TgiResponse:
        """For finished rows, the likeliest text first."""
        best = self.order.chosen(rows)[0][0]
        given = self.parameters
        response = TgiResponse(generated_text=self.whole(best), **self.order.told_changed)
        if given.details or given.decoder_input_details:
            response.details = TgiDetails(**self._details(best))
            others = [self._sequence(row) for row in rows if row is not best]
            response.details.best_of_sequences = others or None
        return response

    def events(self, row: Row) -> TgiStream:
        """The events of a stream of `row`."""
        return TgiStream(self, row)

    def _sequence(self, row: Row) -> TgiSequence:
        return TgiSequence(generated_text=self.whole(row), **self._details(row))

    def whole(self, row: Row) -> str:
        """The text, after the prompt where that is asked for."""
        return self.inputs + row.text if self.parameters.return_full_text else row.text

    def _details(self, row: Row) -> dict[str, Any]:
        given = self.parameters
        details: dict[str, Any] = self.summary(row)
        details["tokens"] = [self.token(row, at) for at in range(len(row.ids))]
        if given.decoder_input_details:
            details["prefill"] = list(_prefill(row)) if self.order.prompts[0] else []
        if given.top_n_tokens:
            details["top_tokens"] = [self.alternatives(row, at) for at in range(len(row.ids))]
        return details

    def summary(self, row: Row) -> dict[str, Any]:
        """How a row ended."""
        return {
            "finish_reason": "stop_sequence" if row.finish_reason == "stop" else "length",
            "generated_tokens": len(row.ids),
            "seed": self.order.seed,
        }

    def token(self, row: Row, at: int) -> TgiToken:
        """The character written at place `at`."""
        return TgiToken(id=row.ids[at], text=row.text[at], logprob=row.logprobs_of[at])

    def alternatives(self, row: Row, at: int) -> list[TgiToken]:
        """The likeliest characters at place `at` of the text."""
        likeliest = row.top[len(row.prompt_logprobs) + at]
        return [TgiToken(id=i, text=row.vocabulary.decode([i]), logprob=value) for i, value in likeliest]


class TgiStream:
    """One event for each character. The last one tells of the whole text, so one is always kept back."""

    def __init__(self, order: TgiOrder, row: Row) -> None:
        self._order, self._row, self._told = order, row, 0

    def encode(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        """The events that a chunk allows."""
        known = chunk.start + len(chunk.text)
        for at in range(self._told, known - 1):
            yield self._event(at)
        self._told = max(self._told, known - 1)
        if chunk.finish_reason is not None:
            yield self._last()

    def _event(self, at: int) -> dict[str, Any]:
        token = self._order.token(self._row, at).model_dump()
        event = {"index": at + 1, "token": token, "generated_text": None, "details": None}
        if self._order.parameters.top_n_tokens:
            event["top_tokens"] = [other.model_dump() for other in self._order.alternatives(self._row, at)]
        return event

    def _last(self) -> dict[str, Any]:
        row = self._row
        if self._told < len(row.ids):
            event = self._event(self._told)
        else:  # a stop string came before any character
            nothing = TgiToken(id=0, text="", logprob=None, special=True).model_dump()
            event = {"index": self._told + 1, "token": nothing}
        summary = self._order.summary(row) | {"input_length": len(self._order.order.prompts[0])}
        whole = {"generated_text": self._order.whole(row), "details": summary}
        return event | whole | self._order.order.told_changed


def _prefill(row: Row) -> Iterator[TgiPrefillToken]:
    yield TgiPrefillToken(id=int(row.prompt[0]), text=row.vocabulary.decode(row.prompt[:1]), logprob=None)
    for i, value in zip(islice(row.prompt.tolist(), 1, None), row.prompt_logprobs, strict=True):
        yield TgiPrefillToken(id=i, text=row.vocabulary.decode([i]), logprob=value)
