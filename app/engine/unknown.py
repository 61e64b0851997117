"""Prompts as a model reads them: characters that it has never seen are refused, dropped or replaced."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Literal

from model.errors import UnknownCharacterError
from model.vocabulary import Vocabulary

Unknown = Literal["refuse", "drop", "replace"]

MARK = "\ufeff"  # a byte order mark, decoded
DOUBLE_QUOTES = '"“”„‟«»″〃＂'
SINGLE_QUOTES = "'’‘‚‛‹›′`´ʼ＇"
DASHES = "-–—―‐‑‒−﹘﹣－"


def plain(text: str, vocabulary: Vocabulary) -> str:
    """`text` without a byte order mark and with plain line ends, as texts are read for training."""
    if text.startswith(MARK) and MARK not in vocabulary.characters:
        text = text.removeprefix(MARK)
    if "\r" in text and "\r" not in vocabulary.characters:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def readable(text: str, vocabulary: Vocabulary, how: Unknown) -> tuple[str, int]:
    """The text that `vocabulary` reads for `text`, and how many characters it had never seen.

    Raises UnknownCharacterError, with positions in `text` as it was given, if these are to be refused.
    """
    cleaned = plain(text, vocabulary)
    missing = {character for character in set(cleaned) if character not in vocabulary.characters}
    if not missing:
        return cleaned, 0
    if how == "refuse":
        given = [(at, one) for at, one in vocabulary.unknown(text) if one in missing]
        raise UnknownCharacterError(given or vocabulary.unknown(cleaned))
    table = {ord(one): nearest(one, vocabulary) if how == "replace" else "" for one in missing}
    return cleaned.translate(table), sum(map(cleaned.count, missing))


def nearest(character: str, vocabulary: Vocabulary) -> str:
    """What comes closest to a character among those of the vocabulary; nothing if none is near."""
    for candidate in _candidates(character):
        if candidate and all(one in vocabulary.characters for one in candidate):
            return candidate
    return ""


def _candidates(character: str) -> Iterator[str]:
    """The likest first: the same kind of sign, the letter without its marks, the other case."""
    for group in (DOUBLE_QUOTES, SINGLE_QUOTES, DASHES):
        if character in group:
            yield from group
    if character in DOUBLE_QUOTES:
        yield from SINGLE_QUOTES
    if character.isspace():
        yield from " \n"
    decomposed = unicodedata.normalize("NFKD", character)
    base = "".join(one for one in decomposed if not unicodedata.combining(one))
    yield from (base, character.swapcase(), base.swapcase())
