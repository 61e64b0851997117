"""One row of a batch: its prompt, its settings and the text generated so far."""

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
    """For each position: log-probability, rank, and the ids and log-probabilities of the most likely."""
    shape = places, alternatives
    return (
        np.empty(places, np.float32),
        np.empty(places, np.int32),
        np.empty(shape, np.int32),
        np.empty(shape, np.float32),
    )


NO_SCORES = _arrays(0, 0)  # shared by all rows without log-probabilities


class Row:
    """A prompt, and up to `length` characters generated after it.

    Args:
        vocabulary: of the network.
        prompt: text or ids; an empty one becomes `start_character`.
        length: maximum number of characters to generate.
        sampling: the sampling settings.
        seed, choice: of the random stream.
        stop: strings that end the text, which does not include them.
        logprobs: number of most likely characters to keep for each position; None for no log-probabilities.

    Raises UnknownCharacterError if the prompt has characters outside the vocabulary, ConfigError for other
    invalid values.

    Attributes:
        ids: the ids generated so far.
        finish_reason: None, "length" or "stop".
        watched: whether `ids` and `text` are updated after every block; otherwise only at the end.
        read: number of characters fed to the network, updated along with `ids`.
        scored: number of characters with known log-probability: the prompt's from the second on, then the
            generated ones; 0 unless `logprobs` is given.
        released: number of characters that `release` has returned.
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
        self.scored = 0
        scores = NO_SCORES
        if logprobs is not None:
            scores = _arrays(len(self.prompt) - 1 + length, min(logprobs, len(vocabulary)))
        self._logprobs, self._ranks, self._likeliest, self._likeliest_logprobs = scores
        self.read = 0
        self.watched = bool(stop)
        self._text = ""
        self.released = 0
        if self.steps_left == 0:
            self.finish_reason = "length"

    @property
    def steps_left(self) -> int:
        """Characters to be fed until `length` is reached."""
        return max(len(self.prompt) + self.length - 1, 0) - self.read

    @property
    def text(self) -> str:
        """The text generated so far, without the stop string that ended it."""
        return self._text

    @property
    def prompt_logprobs(self) -> Array:
        """log p of each prompt character from the second on, as far as the prompt has been read."""
        return self._logprobs[: min(self.scored, len(self.prompt) - 1)]

    @property
    def all_logprobs(self) -> Array:
        """log p of the `scored` characters, (scored,)."""
        return self._logprobs[: self.scored]

    @property
    def logprobs_of(self) -> Array:
        """log p of each generated character, before temperature and filters."""
        return self._logprobs[len(self.prompt) - 1 : self.scored]

    @property
    def ranks(self) -> NDArray[np.int32]:
        """The rank of each of the `scored` characters by probability, 1 for the most likely."""
        return self._ranks[: self.scored]

    def likeliest(self, begin: int, end: int) -> list[list[tuple[int, float]]]:
        """(id, log p) of the `logprobs` most likely characters at the scored positions `begin` to `end`."""
        ids = self._likeliest[begin:end].tolist()
        logprobs = self._likeliest_logprobs[begin:end].tolist()
        return [list(zip(*pair, strict=True)) for pair in zip(ids, logprobs, strict=True)]

    def release(self) -> str:
        """The text generated since the last call, without an end that may be the start of a stop string."""
        end = len(self._text)
        if self.finish_reason is None:
            end = max(self.released, end - self._held_back())
        text, self.released = self._text[self.released : end], end
        return text

    def accept(self, ids: NDArray[np.integer]) -> None:
        """Appends generated ids, up to a stop string."""
        searched_from = max(0, len(self._text) - max(map(len, self.stop), default=0))
        self.ids.extend(ids.tolist())
        self._text += self.vocabulary.decode(ids)
        found = [(self._text.find(text, searched_from), len(text)) for text in self.stop]
        ends = [(at + length, at) for at, length in found if at >= 0]
        if ends:
            # the stop string that ends first, so that the result does not depend on the size of the blocks
            self._end_at(min(ends)[1])
        elif len(self.ids) >= self.length and self.steps_left == 0:
            self.finish_reason = "length"

    def score(self, logits: Array, ids: NDArray[np.integer]) -> None:
        """Records the scores of the next `ids` (T,), of the prompt or generated, from their logits (T, K)."""
        logprobs = log_softmax(logits)
        of_ids = np.take_along_axis(logprobs, ids[:, None], axis=1)
        now = slice(self.scored, self.scored + len(ids))
        self._logprobs[now] = of_ids[:, 0]
        self._ranks[now] = 1 + np.count_nonzero(logprobs > of_ids, axis=1)
        if self.logprobs:
            likeliest = np.argsort(-logprobs, axis=1, kind="stable")[:, : self.logprobs]
            self._likeliest[now] = likeliest
            self._likeliest_logprobs[now] = np.take_along_axis(logprobs, likeliest, axis=1)
        self.scored = now.stop

    def _end_at(self, count: int) -> None:
        self.finish_reason = "stop"
        self._text = self._text[:count]
        self.scored = min(self.scored, len(self.prompt) - 1 + count)
        del self.ids[count:]

    def _held_back(self) -> int:
        """The length of the longest suffix of the text that is a prefix of a stop string."""
        longest = 0
        for stop in self.stop:
            for size in range(min(len(stop) - 1, len(self._text)), longest, -1):
                if self._text.endswith(stop[:size]):
                    longest = size
                    break
        return longest


def start_character(vocabulary: Vocabulary) -> str:
    """The prompt used in place of an empty one: a newline, or the first character if there is no newline."""
    return "\n" if "\n" in vocabulary.characters else vocabulary.characters[0]


def _prompt_ids(vocabulary: Vocabulary, prompt: str | Sequence[int]) -> NDArray[np.integer]:
    if isinstance(prompt, str):
        return vocabulary.encode(prompt or start_character(vocabulary))
    if not len(prompt):
        return vocabulary.encode(start_character(vocabulary))
    # checked before the conversion, because an array cannot hold ids of more than 64 bits
    if min(prompt) < 0 or max(prompt) >= len(vocabulary):
        raise ConfigError("prompt", f"must hold ids from 0 to {len(vocabulary) - 1}")
    return np.asarray(prompt, np.int64)
