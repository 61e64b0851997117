"""Counts what readers look for in generated text: real words, names, and characters that occur once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
WITHIN_SENTENCE = re.compile(r"(?<=[^\W\d_][ ])" + WORD.pattern + r"|(?<=[^\W\d_],[ ])" + WORD.pattern)
LONG = 4  # minimum letters of a word to list; shorter ones appear by chance
READ = 10_000_000  # characters of a text that are read, since a longer text could take half a minute


@dataclass(frozen=True)
class Passage:
    """The counts of a generated text: its words, and how many of them occur in the training text."""

    words: int
    known: int

    @property
    def share(self) -> float | None:
        """The fraction of known words; None if there are no whole words."""
        return self.known / self.words if self.words else None


@dataclass(frozen=True)
class Findings:
    """The findings in all passages together.

    Attributes:
        passages: counts in the order of the passages.
        words: real words of at least LONG letters with their counts, the most frequent first.
        names: the same for words that the text always capitalises, also within sentences.
        single: characters that occur once in the text, and whether any passage contains them.
        places: for each of these, the indexes of the passages that contain it.
        characters: number of distinct characters of the text.
    """

    passages: list[Passage]
    words: list[tuple[str, int]]
    names: list[tuple[str, int]]
    single: list[tuple[str, bool]]
    places: dict[str, list[int]]
    characters: int


@dataclass(frozen=True)
class Known:
    """What is known of a text: its words in lower case, its names, and the count of each character."""

    words: frozenset[str]
    names: frozenset[str]
    counts: Counter[str]


def learn(text: str) -> Known:
    """Examine a text once for all passages."""
    spelled = {match[0] for match in WORD.finditer(text, 0, READ)}
    names = {match[0] for match in WITHIN_SENTENCE.finditer(text, 0, READ)}
    names = {word for word in names if word[0].isupper() and len(word) > 1}
    names = {word for word in names if word.isalpha() and word.lower() not in spelled}
    return Known(frozenset(map(str.lower, spelled)), frozenset(names), Counter(text))


def compare(known: Known, passages: Sequence[str]) -> Findings:
    """Examine passages of a network that was trained on the text."""
    written: Counter[str] = Counter()
    counted = []
    for passage in passages:
        words = _whole_words(passage)
        real = [word for word in words if word.lower() in known.words]
        counted.append(Passage(len(words), len(real)))
        written.update(real)
    lower: Counter[str] = Counter()
    for word, count in written.items():
        if word not in known.names and len(word) >= LONG:
            lower[word.lower()] += count
    once = sorted(character for character, count in known.counts.items() if count == 1)
    places = {
        character: [number for number, passage in enumerate(passages) if character in passage]
        for character in once
    }
    return Findings(
        passages=counted,
        words=_ordered(lower),
        names=_ordered(Counter({word: count for word, count in written.items() if word in known.names})),
        single=[(character, bool(places[character])) for character in once],
        places=places,
        characters=len(known.counts),
    )


def _whole_words(passage: str) -> list[str]:
    """The words of a passage, except one at its very beginning or end, which may be cut off."""
    found = list(WORD.finditer(passage))
    if found and found[0].start() == 0:
        found = found[1:]
    if found and found[-1].end() == len(passage):
        found = found[:-1]
    return [match[0] for match in found]


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
