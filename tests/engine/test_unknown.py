"""Replacements for characters that a model does not know."""

import unicodedata

import pytest

from app.engine.unknown import nearest, readable
from model.errors import UnknownCharacterError
from model.vocabulary import Vocabulary

ENGLISH = Vocabulary.from_text("\n abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXY.,'\"-3")


@pytest.mark.parametrize(
    ("character", "expected"),
    [
        *[(quote, '"') for quote in "“”„«»＂"],
        *[(quote, "'") for quote in "‘’‚‹›′`´"],
        *[(dash, "-") for dash in "‐‑‒–—―−－"],
        ("é", "e"),
        ("É", "E"),
        ("ǘ", "u"),
        ("ﬁ", "fi"),
        ("…", "..."),
        ("３", "3"),
        ("³", "3"),
        ("\u00a0", " "),
        ("\u2003", " "),
        ("\t", " "),
        ("Z", "z"),
        ("Ž", "z"),
        ("\u0301", ""),
        ("€", ""),
        ("字", ""),
        ("😀", ""),
        ("\ud800", ""),
    ],
)
def test_nearest_character_is_a_variant_or_the_unaccented_letter(character, expected):
    assert nearest(character, ENGLISH) == expected


@pytest.mark.parametrize(
    ("known", "character", "expected"),
    [
        ("“”’—", '"', "“"),
        ("“”’—", "'", "’"),
        ("“”’—", "-", "—"),
        ("'a", '"', "'"),
        ("ACGT", "g", "G"),
        ("ACGT", "á", "A"),
        ("ACGT\n", " ", "\n"),
        ("ACGT", " ", ""),
        ("sS", "ß", "ss"),
        ("ασ", "ς", "σ"),
        ("e\u0301", "é", "e\u0301"),  # a text with the accents as characters of their own
    ],
)
def test_nearest_character_depends_on_the_vocabulary(known, character, expected):
    assert nearest(character, Vocabulary(sorted(known))) == expected


@pytest.mark.parametrize(("how", "expected"), [("drop", "cafe caf zBz"), ("replace", 'cafe cafe "zBz"')])
def test_characters_are_dropped_or_replaced_and_counted(how, expected):
    assert readable("cafe café “zBz”", ENGLISH, how) == (expected, 3)


@pytest.mark.parametrize(("known", "whole"), [("café", "café"), ("カガ", "ガカ"), ("한글", "한글")])
def test_letter_and_its_mark_are_replaced_by_the_accented_letter(known, whole):
    """macOS separates letters and marks in the names of files, and what is copied from them."""
    separate = unicodedata.normalize("NFD", whole)
    vocabulary = Vocabulary(sorted(set(known)))
    assert separate != whole
    read, changed = readable(separate, vocabulary, "replace")
    assert (read, changed) == (whole, sum(one not in known for one in separate))


def test_known_text_is_unchanged():
    for how in ("refuse", "drop", "replace"):
        assert readable("the cat, 'sat'", ENGLISH, how) == ("the cat, 'sat'", 0)


@pytest.mark.parametrize("how", ["refuse", "drop", "replace"])
def test_line_ends_and_byte_order_marks_are_normalised(how):
    assert readable("\ufeffa\r\nb\rc\n", ENGLISH, how) == ("a\nb\nc\n", 0)
    with_both = Vocabulary(sorted("\n\rab\ufeff"))
    assert readable("\ufeffa\r\nb", with_both, how) == ("\ufeffa\r\nb", 0)


def test_refused_characters_have_positions_in_the_sent_text():
    with pytest.raises(UnknownCharacterError) as error:
        readable("\ufeffa\r\n€b€", ENGLISH, "refuse")
    assert error.value.unknown == [(4, "€"), (6, "€")]
    with pytest.raises(UnknownCharacterError) as error:
        readable("a\rb", Vocabulary("ab"), "refuse")
    assert error.value.unknown == [(1, "\n")]
