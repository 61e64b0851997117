"""One row of a batch: a prompt to read, a text to write, and what has come of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.cells import Array
from model.errors import ConfigError
from model.loss import log_softmax
from model.sampling import SamplingConfig, draw_uniforms, random_stream
from model.vocabulary import Vocabulary


def _arrays(places: int, alternatives: int) -> tuple[Array, NDArray[np.int32], NDArray[np.int32], Array]:
    """Of each position: log-probability and rank; ids and log-probabilities of the most likely."""
    shape = places, alternatives
    return (
        np.empty(places, np.float32),
        np.empty(places, np.int32),
        np.empty(shape, np.int32),
        np.empty(shape, np.float32),
    )


NOTHING_TOLD = _arrays(0, 0)  # most texts are wanted without log-probabilities


class Row:
    """One row: a prompt to read, then up to `length` characters to write.

    Attributes:
        ids: what it has written; `finish_reason`: None, "length" or "stop".
        watched: whether ids and text are kept up to date after every block; else they are at the end.
        read: characters fed to the network; up to date when `ids` are.
        told: characters whose log-probability is known, the prompt's after its first and then those written;
            0 unless `logprobs` is given.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt: str | Sequence[int],
        length: int,
        sampling: SamplingConfig | None = None,
        seed: int = 0,
        choice: int = 0,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
    ) -> None:
        if length < 0:
            raise ConfigError("length", f"must be at least 0. Given: {length}")
        if any(not text for text in stop):
            raise ConfigError("stop", "must not hold an empty string")
        self.vocabulary, self.length, self.stop, self.logprobs = vocabulary, length, tuple(stop), logprobs
        self.sampling = sampling or SamplingConfig()
        self.prompt = _prompt_ids(vocabulary, prompt)
        self.uniforms = draw_uniforms(random_stream(seed, choice), self.sampling, length)
        self.ids: list[int] = []
        self.finish_reason: str | None = None
        self.told = 0
        told = NOTHING_TOLD
        if logprobs is not None:
            told = _arrays(len(self.prompt) - 1 + length, min(logprobs, len(vocabulary)))
        self._logprobs, self._ranks, self._likeliest, self._likeliest_logprobs = told
        self.read = 0
        self.watched = bool(stop)
        self._text = ""
        self.released = 0  # characters that `release` has given out
        if self.steps_left == 0:
            self.finish_reason = "length"

    @property
    def steps_left(self) -> int:
        """Characters still to be fed until it ends, unless a stop string ends it before."""
        return max(len(self.prompt) + self.length - 1, 0) - self.read

    @property
    def text(self) -> str:
        """What it has written, without the stop string that ended it."""
        return self._text

    @property
    def prompt_logprobs(self) -> Array:
        """log p of each prompt character after the first, as far as it has been read."""
        return self._logprobs[: min(self.told, len(self.prompt) - 1)]

    @property
    def all_logprobs(self) -> Array:
        """log p of the `told` characters."""
        return self._logprobs[: self.told]

    @property
    def logprobs_of(self) -> Array:
        """log p of each character written, before temperature and filters."""
        return self._logprobs[len(self.prompt) - 1 : self.told]

    @property
    def ranks(self) -> NDArray[np.int32]:
        """For each of the `told` characters how many were likelier at its place, plus 1."""
        return self._ranks[: self.told]

    def likeliest(self, begin: int, end: int) -> list[list[tuple[int, float]]]:
        """The `logprobs` likeliest (id, log p) at the places `begin` to `end` of the `told` characters."""
        ids = self._likeliest[begin:end].tolist()
        logprobs = self._likeliest_logprobs[begin:end].tolist()
        return [list(zip(*pair, strict=True)) for pair in zip(ids, logprobs, strict=True)]

    def release(self) -> str:
        """What has been written since the last call and can no longer turn out to begin a stop string."""
        end = len(self._text)
        if self.finish_reason is None:
            end = max(self.released, end - self._held_back())
        text, self.released = self._text[self.released : end], end
        return text

    def accept(self, ids: NDArray[np.integer]) -> None:
        """Takes the next characters written, up to where a stop string ends it."""
        searched_from = max(0, len(self._text) - max(map(len, self.stop), default=0))
        self.ids.extend(ids.tolist())
        self._text += self.vocabulary.decode(ids)
        found = [(self._text.find(text, searched_from), len(text)) for text in self.stop]
        ends = [(at + length, at) for at, length in found if at >= 0]
        if ends:
            # the one that is whole first, so that it does not matter how many characters came at once
            self._end_at(min(ends)[1])
        elif len(self.ids) >= self.length and self.steps_left == 0:
            self.finish_reason = "length"

    def tell(self, logits: Array, ids: NDArray[np.integer]) -> None:
        """Takes the logits (T, K) that the next `ids` (T,), of the prompt or written, followed from."""
        logprobs = log_softmax(logits)
        of_ids = np.take_along_axis(logprobs, ids[:, None], axis=1)
        now = slice(self.told, self.told + len(ids))
        self._logprobs[now] = of_ids[:, 0]
        self._ranks[now] = 1 + np.count_nonzero(logprobs > of_ids, axis=1)
        if self.logprobs:
            likeliest = np.argsort(-logprobs, axis=1, kind="stable")[:, : self.logprobs]
            self._likeliest[now] = likeliest
            self._likeliest_logprobs[now] = np.take_along_axis(logprobs, likeliest, axis=1)
        self.told = now.stop

    def _end_at(self, count: int) -> None:
        self.finish_reason = "stop"
        self._text = self._text[:count]
        self.told = min(self.told, len(self.prompt) - 1 + count)
        del self.ids[count:]

    def _held_back(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        longest = 0
        for stop in self.stop:
            for size in range(min(len(stop) - 1, len(self._text)), longest, -1):
                if self._text.endswith(stop[:size]):
                    longest = size
                    break
        return longest


def start_character(vocabulary: Vocabulary) -> str:
    """What an empty prompt starts from: a line break, or the first character where a text has none."""
    return "\n" if "\n" in vocabulary.characters else vocabulary.characters[0]


def _prompt_ids(vocabulary: Vocabulary, prompt: str | Sequence[int]) -> NDArray[np.integer]:
    if isinstance(prompt, str):
        return vocabulary.encode(prompt or start_character(vocabulary))
    if not len(prompt):
        return vocabulary.encode(start_character(vocabulary))
    # before there is an array, which holds no number of more than 64 bits
    if min(prompt) < 0 or max(prompt) >= len(vocabulary):
        raise ConfigError("prompt", f"must hold ids from 0 to {len(vocabulary) - 1}")
    return np.asarray(prompt, np.int64)
