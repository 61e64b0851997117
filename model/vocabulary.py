"""The vocabulary of a text: its distinct characters and their ids."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from model.errors import ConfigError, UnknownCharacterError

MAX_CHARACTERS = 1 << 16  # more than any script has; each one costs weights, and time in every step
PIECE = 1 << 20  # characters looked up together; the lookup needs 25 bytes of memory for each
SHORT = 64  # characters up to which looking them up one by one is faster


class Vocabulary:
    """The distinct characters of a text. A character's id is its rank by code point.

    The ids depend only on the set of characters, so two runs on the same text have the same ids. The
    constructor raises ConfigError unless `characters` are sorted, distinct, and 1 to MAX_CHARACTERS of them.
    """

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = "".join(characters)
        if not self.characters:
            raise ConfigError("vocabulary", "must hold at least one character")
        if len(self.characters) > MAX_CHARACTERS:
            raise ConfigError(
                "vocabulary",
                f"must hold at most {MAX_CHARACTERS:,} characters. Given: {len(self.characters):,}",
            )
        points = _code_points(self.characters)
        if np.any(np.diff(points.astype(np.int64)) <= 0):
            raise ConfigError("vocabulary", "must be sorted by code point, without repeats")
        self._points = points
        self._ids = {character: i for i, character in enumerate(self.characters)}

    @classmethod
    def from_text(cls, text: str) -> Vocabulary:
        """The vocabulary of `text`. Raises ConfigError if it has no characters or too many distinct ones."""
        return cls(sorted(set(text)))

    def __len__(self) -> int:
        return len(self.characters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.characters == other.characters

    def __hash__(self) -> int:
        return hash(self.characters)

    def __repr__(self) -> str:
        return f"Vocabulary({self.characters!r})"

    def encode(self, text: str) -> NDArray[np.int32]:
        """The ids of the characters of `text`, shape (len(text),).

        Raises UnknownCharacterError, with every unknown character and its position.
        """
        if len(text) <= SHORT and all(character in self._ids for character in text):
            return np.array([self._ids[character] for character in text], np.int32)
        ids = np.empty(len(text), np.int32)
        for start in range(0, len(text), PIECE):
            piece = slice(start, start + PIECE)
            ids[piece], known = self._look_up(text[piece])
            if not known.all():
                raise UnknownCharacterError(self.unknown(text))
        return ids

    def decode(self, ids: Iterable[int] | NDArray[np.integer]) -> str:
        """The text of a sequence of ids, (N,)."""
        points = self._points[np.asarray(ids, dtype=np.intp)]
        return points.tobytes().decode("utf-32-le", "surrogatepass")

    def unknown(self, text: str) -> list[tuple[int, str]]:
        """(position, character) of every character of `text` that is not in the vocabulary."""
        known = self._look_up(text)[1]
        return [(int(i), text[i]) for i in np.flatnonzero(~known)]

    def _look_up(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        points = _code_points(text)
        ranks = np.minimum(np.searchsorted(self._points, points), len(self) - 1)
        return ranks.astype(np.int32), self._points[ranks] == points


def _code_points(text: str) -> NDArray[np.uint32]:
    # surrogatepass: a lone surrogate from JSON must be reported as unknown, not raise UnicodeEncodeError
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
