"""Hidden units along a text: their values equal the reference, and some follow a feature of the text."""

import numpy as np
import pytest

from model import units
from tests.support.networks import VOCABULARY, random_network, reference_units


@pytest.mark.parametrize(("cell", "layers"), [("elman", 1), ("gru", 2), ("lstm", 2)])
def test_units_across_windows_equal_reference(monkeypatch, cell, layers):
    monkeypatch.setattr(units, "WINDOW", 7)  # several windows, the last one shorter
    network = random_network(cell, layers, hidden=5)
    ids = VOCABULARY.encode("the cat, the dog\nand the mat!")
    found = units.activations(network, ids)
    assert found.shape == (29, layers, 5)
    np.testing.assert_allclose(found, reference_units(network, ids), atol=1e-5)


def test_features_mark_the_expected_characters():
    text = 'A “b” (c)\n"d" e!'
    found = units.features(text)
    assert "".join("01"[int(x)] for x in found["inside quotation marks"]) == "0011000000110000"
    assert "".join("01"[int(x)] for x in found["inside brackets"]) == "0000001100000000"
    assert found["position in the line"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6]
    assert found["position in the word"].tolist() == [1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0]
    assert np.flatnonzero(found["capital letters"]).tolist() == [0]
    assert np.flatnonzero(found["vowels"]).tolist() == [0, 14]


def test_units_that_follow_a_feature_are_found():
    text = "the (quick brown) fox\njumps (over)\n" * 8
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.3, (len(text), 2, 6))
    named = units.features(text)
    values[:, 1, 4] = -named["inside brackets"]
    values[:, 0, 2] = named["position in the line"] / 40 + rng.normal(0, 0.01, len(text))
    values[:, 0, 0] = 0  # a constant unit
    found = {follower.feature: follower for follower in units.followers(values, text)}
    brackets, line = found["inside brackets"], found["position in the line"]
    assert (brackets.layer, brackets.unit) == (1, 4)
    assert brackets.correlation == pytest.approx(-1)
    assert (line.layer, line.unit) == (0, 2)
    assert line.correlation > 0.9
    assert "inside quotation marks" not in found  # the text has none
    assert units.followers(values[:1], "a") == []


def test_unit_that_agrees_by_chance_is_not_a_follower():
    rng = np.random.default_rng(0)
    text = "the quick Brown Fox jumps Over it\n" * 8
    noise = rng.normal(0, 0.3, (len(text), 1, 500))
    assert units.followers(noise, text) == []
    noise[:, 0, 7] = units.features(text)["capital letters"]
    assert [follower.unit for follower in units.followers(noise, text)] == [7]
    noise[len(text) // 2 :, 0, 7] *= -1  # reversed in the second half
    assert units.followers(noise, text) == []


def test_feature_of_a_few_characters_has_no_follower():
    text = "A sentence with one capital, and no more than this."
    values = np.zeros((len(text), 1, 1))
    values[0] = 1
    assert "capital letters" not in {follower.feature for follower in units.followers(values, text)}
