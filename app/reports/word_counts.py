"""What one looks for by eye in generated text, counted: real words, names, characters that come once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
WITHIN_SENTENCE = re.compile(r"(?<=[^\W\d_][ ])" + WORD.pattern + r"|(?<=[^\W\d_],[ ])" + WORD.pattern)
LONG = 4  # letters of a word worth naming: shorter ones appear by chance
READ = 10_000_000  # characters of a text whose words are known; all of a longer text would take half a minute


@dataclass(frozen=True)
class Passage:
    """A generated text: its words, and how many of them occur in the text that was learned."""

    words: int
    known: int

    @property
    def share(self) -> float | None:
        """None where there is no whole word."""
        return self.known / self.words if self.words else None


@dataclass(frozen=True)
class Findings:
    """What was found in all passages together.

    Attributes:
        passages: in the order given.
        words: real words of LONG letters or more, and how often they were written, most often first.
        names: the same of words that the text writes only with a capital, also within sentences.
        single: characters that the text holds once, and whether any passage holds them.
        places: of each of these, the passages that hold it, numbered from 0.
        characters: different ones in the text.
    """

    passages: list[Passage]
    words: list[tuple[str, int]]
    names: list[tuple[str, int]]
    single: list[tuple[str, bool]]
    places: dict[str, list[int]]
    characters: int


@dataclass(frozen=True)
class Known:
    """Of a text: its words in lower case, its names, and how often each character occurs."""

    words: frozenset[str]
    names: frozenset[str]
    counts: Counter[str]


def learn(text: str) -> Known:
    """What is counted of a text, once for all passages."""
    spelled = {match[0] for match in WORD.finditer(text, 0, READ)}
    names = {match[0] for match in WITHIN_SENTENCE.finditer(text, 0, READ)}
    names = {word for word in names if word[0].isupper() and len(word) > 1}
    names = {word for word in names if word.isalpha() and word.lower() not in spelled}
    return Known(frozenset(map(str.lower, spelled)), frozenset(names), Counter(text))


def read(text: str, passages: Sequence[str]) -> Findings:
    """Looks through passages that a network wrote after learning `text`."""
    return compare(learn(text), passages)


def compare(known: Known, passages: Sequence[str]) -> Findings:
    """The same, of a text that was looked through before."""
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
    """Without the first and the last if the passage begins or ends within them: they may be cut."""
    found = list(WORD.finditer(passage))
    if found and found[0].start() == 0:
        found = found[1:]
    if found and found[-1].end() == len(passage):
        found = found[:-1]
    return [match[0] for match in found]


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
