import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ConfigError, UnknownCharacterError
from model.vocabulary import Vocabulary


@given(st.text(min_size=1))
def test_decode_reverses_encode(text):
    vocabulary = Vocabulary.from_text(text)
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert len(vocabulary) == len(set(text))
    assert ids.dtype == np.int32


@given(st.text(min_size=1), st.text())
def test_unknown_returns_exactly_the_unknown_characters(text, other):
    vocabulary = Vocabulary.from_text(text)
    expected = [(i, character) for i, character in enumerate(other) if character not in text]
    assert vocabulary.unknown(other) == expected
    if expected:
        with pytest.raises(UnknownCharacterError) as error:
            vocabulary.encode(other)
        assert error.value.unknown == expected


@given(st.lists(st.characters(), min_size=1))
def test_vocabulary_does_not_depend_on_the_order_of_the_text(characters):
    assert Vocabulary.from_text("".join(characters)) == Vocabulary.from_text("".join(reversed(characters)))


def test_characters_beyond_the_basic_plane_are_one_id_each():
    vocabulary = Vocabulary.from_text("a😀é")
    assert vocabulary.decode(vocabulary.encode("😀é")) == "😀é"
    assert vocabulary.unknown("a😁") == [(1, "😁")]


def test_lone_surrogate_is_an_unknown_character():
    assert Vocabulary.from_text("abc").unknown("a\ud800") == [(1, "\ud800")]


@pytest.mark.parametrize("characters", ["", "ba", "aa"])
def test_characters_that_are_not_a_sorted_set_are_refused(characters):
    with pytest.raises(ConfigError):
        Vocabulary(characters)


def test_long_list_of_unknown_characters_is_shortened():
    with pytest.raises(UnknownCharacterError, match="and 15 more"):
        Vocabulary.from_text("a").encode("x" * 25)


def test_long_text_is_encoded_in_pieces(monkeypatch):
    text = "".join(chr(97 + index * index % 26) for index in range(205))
    vocabulary = Vocabulary.from_text(text)
    expected = vocabulary.encode(text).tolist()
    monkeypatch.setattr("model.vocabulary.PIECE", 100)
    assert vocabulary.encode(text).tolist() == expected == [vocabulary.characters.index(c) for c in text]
    with pytest.raises(UnknownCharacterError) as raised:
        vocabulary.encode(f"{text}!{text}?")
    assert raised.value.unknown == [(205, "!"), (411, "?")]
