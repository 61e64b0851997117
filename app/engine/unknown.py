"""Handling of characters in prompts that the model has never seen: refuse, drop or replace them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import Literal

from model.errors import UnknownCharacterError
from model.vocabulary import Vocabulary

Unknown = Literal["refuse", "drop", "replace"]

MARK = "\ufeff"  # a byte order mark, decoded
DOUBLE_QUOTES = '"“”„‟«»″〃＂'
SINGLE_QUOTES = "'’‘‚‛‹›′`´ʼ＇"
DASHES = "-–—―‐‑‒−﹘﹣－"


def plain(text: str, vocabulary: Vocabulary) -> str:
    """`text` without a byte order mark and carriage returns, as in training, unless the model knows them."""
    if text.startswith(MARK) and MARK not in vocabulary.characters:
        text = text.removeprefix(MARK)
    if "\r" in text and "\r" not in vocabulary.characters:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def plain_stops(stop: Iterable[str], vocabulary: Vocabulary) -> tuple[str, ...]:
    """Stop strings in `plain` form; a byte order mark alone stays: an empty string would end every text."""
    return tuple(plain(text, vocabulary) or text for text in stop)


def readable(text: str, vocabulary: Vocabulary, how: Unknown) -> tuple[str, int]:
    """`text` converted to the vocabulary, and the number of characters that were dropped or replaced.

    Raises UnknownCharacterError, with positions in the original `text`, if `how` is "refuse".
    """
    cleaned = plain(text, vocabulary)
    missing = {character for character in set(cleaned) if character not in vocabulary.characters}
    if not missing:
        return cleaned, 0
    if how == "refuse":
        given = [(at, one) for at, one in vocabulary.unknown(text) if one in missing]
        raise UnknownCharacterError(given or vocabulary.unknown(cleaned))
    changed = sum(map(cleaned.count, missing))
    if how == "drop":
        return cleaned.translate(dict.fromkeys(map(ord, missing))), changed
    # letters whose marks are characters of their own: the model may know them as one
    whole = unicodedata.normalize("NFC", cleaned)
    others = {one for one in set(whole) if one not in vocabulary.characters}
    return whole.translate({ord(one): nearest(one, vocabulary) for one in others}), changed


def nearest(character: str, vocabulary: Vocabulary) -> str:
    """The closest equivalent of a character in the vocabulary; empty if there is none."""
    for candidate in _candidates(character):
        if candidate and all(one in vocabulary.characters for one in candidate):
            return candidate
    return ""


def _candidates(character: str) -> Iterator[str]:
    """Equivalents, closest first: the same kind of mark, the letter without diacritics, the other case."""
    for group in (DOUBLE_QUOTES, SINGLE_QUOTES, DASHES):
        if character in group:
            yield from group
    if character in DOUBLE_QUOTES:
        yield from SINGLE_QUOTES
    if character.isspace():
        yield from " \n"
    decomposed = unicodedata.normalize("NFKD", character)
    base = "".join(one for one in decomposed if not unicodedata.combining(one))
    yield from (decomposed, base, character.casefold(), character.swapcase(), base.swapcase())
