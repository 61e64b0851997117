"""Beginnings of lines and sentences of a text: prompts that a network of it knows how to continue."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

READ = 500_000  # characters that are looked at
SHORT = 24  # characters: a line of at most so many is a beginning as a whole
WORDS = 2  # of a beginning that is cut
UNBROKEN = 5  # characters of one where no word ends early, as in Chinese
SENTENCES = re.compile(r"\n+|(?<=[.!?…])[ \t]+|(?<=[。！？])")
WORD = re.compile(r"\S+\s+")
LETTER = re.compile(r"[^\W\d_]")


def beginnings(text: str, count: int = 3) -> list[str]:
    """The commonest beginnings, no two with the same first word; of a text that repeats none, any of it."""
    pieces = [piece for part in SENTENCES.split(text[:READ]) if (piece := part.strip())]
    pieces = [piece for piece in pieces if LETTER.search(piece)] or pieces
    whole = Counter(piece + "\n" for piece in pieces if len(piece) <= SHORT)
    cut = Counter(_beginning(piece) for piece in pieces if len(piece) > SHORT)
    # a speaker's name, a heading, an empty case: one of these is enough
    common = [piece for piece, found in whole.most_common(1) if found > 1]
    common += [piece for piece, found in cut.most_common(20 * count) if found > 1]
    spread = [_beginning(pieces[at * len(pieces) // count]) for at in range(count) if pieces]
    chosen: dict[str, str] = {}
    for piece in common + spread:
        chosen.setdefault(piece.split(maxsplit=1)[0], piece)
    return list(chosen.values())[:count]


def _beginning(piece: str) -> str:
    """The first WORDS words of a sentence or line, with the space after them, or as many as are SHORT."""
    ends = [word.end() for word in islice(WORD.finditer(piece), WORDS)]
    return piece[: max((end for end in ends if end <= SHORT), default=UNBROKEN)]
