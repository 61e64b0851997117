"""Beginnings of lines and sentences of a text, as prompts that a network trained on it can continue."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

READ = 500_000  # characters of the text that are examined
SHORT = 24  # a line of at most this many characters is used whole
WORDS = 2  # words of a longer line that are used
UNBROKEN = 5  # characters that are used if no word ends within SHORT, as in Chinese
SENTENCES = re.compile(r"\n+|(?<=[.!?…])[ \t]+|(?<=[。！？])")
WORD = re.compile(r"\S+\s+")
LETTER = re.compile(r"[^\W\d_]")


def beginnings(text: str, count: int = 3) -> list[str]:
    """The most frequent beginnings, with different first words; if none is repeated, evenly spaced ones."""
    pieces = [piece for part in SENTENCES.split(text[:READ]) if (piece := part.strip())]
    pieces = [piece for piece in pieces if LETTER.search(piece)] or pieces
    whole = Counter(piece + "\n" for piece in pieces if len(piece) <= SHORT)
    cut = Counter(_beginning(piece) for piece in pieces if len(piece) > SHORT)
    # at most one whole line, such as a speaker's name or a heading
    common = [piece for piece, found in whole.most_common(1) if found > 1]
    common += [piece for piece, found in cut.most_common(20 * count) if found > 1]
    spread = [_beginning(pieces[at * len(pieces) // count]) for at in range(count) if pieces]
    chosen: dict[str, str] = {}
    for piece in common + spread:
        chosen.setdefault(piece.split(maxsplit=1)[0], piece)
    return list(chosen.values())[:count]


def _beginning(piece: str) -> str:
    """The first WORDS words of a sentence or line, or as many as fit in SHORT, with the space after them."""
    ends = [word.end() for word in islice(WORD.finditer(piece), WORDS)]
    return piece[: max((end for end in ends if end <= SHORT), default=UNBROKEN)]
