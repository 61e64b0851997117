"""A generation request in one form for all APIs, checked against the configured limits.

Each API maps its fields to these names; `names` maps them back for error messages.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.engine.job import Job
from app.engine.loaded_model import LoadedModel
from app.engine.unknown import Unknown, plain_stops, readable
from app.errors import InvalidRequestError, PromptTooLongError, UnknownInFieldError, shortened
from app.settings import Settings
from model.errors import ConfigError, UnknownCharacterError
from model.generation import Row
from model.sampling import RANGES, SamplingConfig

SAMPLING = tuple(RANGES)  # fields that have the same name in every API
SEED_BITS = 32  # of a random seed; every JSON parser represents such a number exactly

LOGPROB_BYTES = 50  # of one log-probability in a response

Prompt = str | Sequence[int]


@dataclass(frozen=True)
class Order:
    """The texts to generate: `best_of` for each prompt, of which the best `n` are returned.

    Attributes:
        length: maximum number of characters of each text; 0 only reads the prompts.
        logprobs: number of most likely characters to return for each position; None for no log-probabilities.
        names: the API's own names of fields, for error messages.
        unknown: how to handle characters of a prompt that are not in the vocabulary.
        changed: the number of characters that were dropped or replaced.
    """

    prompts: tuple[Prompt, ...]
    length: int
    sampling: SamplingConfig
    seed: int
    stop: tuple[str, ...]
    n: int
    best_of: int
    logprobs: int | None
    names: Mapping[str, str]
    unknown: Unknown = "refuse"
    changed: int = 0

    @classmethod
    def of(
        cls,
        settings: Settings,
        prompts: Sequence[Prompt],
        length: int | None = None,
        sampling: Mapping[str, Any] | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        n: int | None = None,
        best_of: int | None = None,
        logprobs: int | None = None,
        names: Mapping[str, str] | None = None,
        unknown: Unknown | None = None,
    ) -> Order:
        """Makes an order; None means the default. Raises InvalidRequestError and ConfigError."""
        n = n or 1
        chosen = {name: value for name, value in (sampling or {}).items() if value is not None}
        config = SamplingConfig(**chosen)
        order = cls(
            prompts=tuple(prompts),
            length=settings.default_length if length is None else length,
            sampling=config,
            seed=secrets.randbits(SEED_BITS) if seed is None else seed,
            stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
            n=n,
            best_of=best_of or n,
            # log-probabilities are needed to choose the best texts
            logprobs=0 if logprobs is None and best_of and best_of > n else logprobs,
            names=names or {},
            unknown=unknown or settings.unknown,
        )
        order._check(settings)
        return order

    def read_by(self, model: LoadedModel, settings: Settings) -> Order:
        """The order with prompts and stop strings converted to the model's vocabulary.

        Raises UnknownInFieldError, PromptTooLongError (a replacement can be longer than the original).
        """
        read: list[Prompt] = []
        changed = 0
        for prompt in self.prompts:
            if isinstance(prompt, str):
                try:
                    prompt, count = readable(prompt, model.vocabulary, self.unknown)
                except UnknownCharacterError as error:
                    raise self._unknown(error, model) from None
                changed += count
            read.append(prompt)
        stop = plain_stops(self.stop, model.vocabulary)
        if not changed and stop == self.stop and tuple(read) == self.prompts:
            return self
        order = replace(self, prompts=tuple(read), stop=stop, changed=changed)
        if changed:
            order._check_prompts(settings)
        return order

    def check_logprobs(self, settings: Settings, models: int = 1) -> None:
        """Raises InvalidRequestError if `models` models would return too many log-probabilities."""
        if self.logprobs is None:
            return
        texts, each = len(self.prompts) * self.best_of * models, 1 + self.logprobs
        characters = self.characters * models
        if characters * each > settings.max_logprobs:
            raise self._refusal(
                "logprobs",
                f"must request at most {settings.max_logprobs} log-probabilities in all. Given: "
                f"{characters * each} (texts: {texts}, characters read and written: {characters}, "
                f"alternatives: {self.logprobs}). Request fewer texts, characters or alternatives",
            )

    @property
    def characters(self) -> int:
        """Characters to be read and generated in all texts, unless a stop string ends one."""
        return self.best_of * (sum(map(len, self.prompts)) + len(self.prompts) * self.length)

    @property
    def size(self) -> int:
        """The approximate size of the response in bytes."""
        logprobs = 0 if self.logprobs is None else self.characters * (1 + self.logprobs)
        return self.characters + LOGPROB_BYTES * logprobs

    @property
    def changed_field(self) -> dict[str, int]:
        """The response field `changed_characters`; empty if unknown characters are refused."""
        return {} if self.unknown == "refuse" else {"changed_characters": self.changed}

    def job(self, model: LoadedModel, seconds: float, streamed: bool = False) -> Job:
        """The job for the engine, with `best_of` rows for each prompt. `seconds` is its time limit.

        A row's random stream depends only on the seed and its number among those of its prompt. Raises
        UnknownInFieldError, InvalidRequestError (ids outside the vocabulary).
        """
        self._check_bias(model)
        try:
            rows = [
                Row(
                    model.vocabulary,
                    prompt,
                    self.length,
                    self.sampling,
                    self.seed,
                    choice=choice,
                    stop=self.stop,
                    logprobs=self.logprobs,
                )
                for prompt in self.prompts
                for choice in range(self.best_of)
            ]
        except ConfigError as error:
            raise self._refusal(error.field, str(error).removeprefix(f"{error.field} ")) from None
        except UnknownCharacterError as error:
            raise self._unknown(error, model) from None
        return Job(model.decoder, rows, seconds, streamed)

    def chosen(self, rows: Sequence[Row]) -> list[list[Row]]:
        """The `n` texts of each prompt: all, or those with the highest mean log-probability."""
        groups = [list(rows[at : at + self.best_of]) for at in range(0, len(rows), self.best_of)]
        if self.best_of > self.n:
            groups = [sorted(group, key=_mean_logprob, reverse=True)[: self.n] for group in groups]
        return groups

    def _check(self, settings: Settings) -> None:
        self._at_most("length", self.length, settings.max_length)
        self._at_most("n", self.n, settings.max_n)
        self._at_most("best_of", self.best_of, settings.max_n)
        if self.best_of < self.n:
            raise self._refusal("best_of", f"must be >= n, which is {self.n}. Given: {self.best_of}")
        if self.best_of > 1 and self.sampling.temperature == 0:
            limit = "must be 1 at temperature 0, where all texts are the same"
            raise self._refusal("n" if self.n > 1 else "best_of", f"{limit}. Given: {self.best_of}")
        if not self.prompts:
            raise self._refusal("prompt", "must hold at least one text. Given: []")
        room = settings.max_rows + settings.max_queue
        texts = len(self.prompts) * self.best_of
        if texts > room:
            raise self._refusal("prompt", f"must request at most {room} texts at once. Given: {texts}")
        self._check_prompts(settings)
        self.check_logprobs(settings)
        if len(self.stop) > settings.max_stop:
            raise self._refusal(
                "stop", f"must hold at most {settings.max_stop} strings. Given: {len(self.stop)}"
            )
        for text in self.stop:
            if len(text) > settings.max_stop_length:
                limit = f"must hold strings of at most {settings.max_stop_length} characters"
                raise self._refusal("stop", f"{limit}. Given: {shortened(text)}")

    def _check_prompts(self, settings: Settings) -> None:
        for prompt in self.prompts:
            if len(prompt) > settings.max_prompt:
                raise PromptTooLongError(
                    self.names.get("prompt", "prompt"),
                    f"must have at most {settings.max_prompt} characters. Given: {len(prompt)}",
                )

    def _unknown(self, error: UnknownCharacterError, model: LoadedModel) -> UnknownInFieldError:
        return UnknownInFieldError(error.unknown, self.names.get("prompt", "prompt"), model.id)

    def _check_bias(self, model: LoadedModel) -> None:
        size = len(model.vocabulary)
        for character, _ in self.sampling.logit_bias:
            if not 0 <= character < size:
                raise self._refusal(
                    "logit_bias", f"must hold ids from 0 to {size - 1}, of {model.id}. Given: {character}"
                )

    def _at_most(self, field: str, value: int, limit: int) -> None:
        if value > limit:
            raise self._refusal(field, f"must be <= {limit}. Given: {value}")

    def _refusal(self, field: str, message: str) -> InvalidRequestError:
        return InvalidRequestError(self.names.get(field, field), message)


def _mean_logprob(row: Row) -> float:
    return float(sum(row.logprobs_of.tolist())) / max(1, len(row.logprobs_of))
