"""Hidden units along a text: their values equal the reference, and some follow a feature of the text."""

import numpy as np
import pytest

from app.store.run_store import RunStore
from model import reference, units
from model.cells import Array
from model.checkpoint import load
from model.network import Network
from tests.support.networks import VOCABULARY, random_network


def reference_units(network: Network, ids: Array) -> Array:
    """Activations (T, L, H) by model/reference.py, one character at a time."""
    states = [list(layer[:, 0]) for layer in network.zero_state(1)]
    outputs = []
    for character in ids:
        _, states, _ = reference.step(
            network.parameters, reference.CELLS[network.config.cell], character, states
        )
        outputs.append([state[0] for state in states])
    return np.array(outputs)


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


def test_activations_of_a_served_model_equal_reference(client, trained_root):
    text = "the cat sat on a mat\n the dog ran"
    request = {"text": text, "model": "gru@40", "layer": 1, "unit": 3}
    answer = client.post("/activations", json=request).json()
    checkpoint = load(RunStore(trained_root).get("gru").checkpoint_path(40))
    expected = reference_units(checkpoint.network(), checkpoint.vocabulary.encode(text))[:, 1, 3]
    assert answer["values"] == pytest.approx(expected.tolist(), abs=1e-3)
    assert (answer["model"], answer["layer"], answer["unit"]) == ("gru@40", 1, 3)
    assert (answer["cell"], answer["layers"], answer["hidden"]) == ("gru", 2, 12)


def test_activations_default_to_the_runs_text_and_best_unit(client, trained_root):
    answer = client.post("/activations", json={}).json()
    assert RunStore(trained_root).get("gru").text().endswith(answer["text"])
    first = answer["followers"][0]
    assert (answer["layer"], answer["unit"]) == (first["layer"], first["unit"])
    strengths = [abs(one["correlation"]) for one in answer["followers"]]
    assert strengths == sorted(strengths, reverse=True)
    assert len(answer["values"]) == len(answer["text"]) > 500


@pytest.mark.parametrize(
    ("request_", "field", "message"),
    [
        ({"text": ""}, "text", "at least 1 character"),
        ({"text": "a€"}, "text", "'€' at position 1"),
        ({"text": "a" * 10_001}, "text", "at most 10000 characters. Given: 10001"),
        ({"layer": 2}, "layer", "from 0 to 1 in gru@60. Given: 2"),
        ({"unit": 12}, "unit", "from 0 to 11 in gru@60. Given: 12"),
    ],
)
def test_invalid_activation_requests_are_refused(client, request_, field, message):
    answer = client.post("/activations", json=request_)
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == field
    assert message in answer.json()["error"]["message"]
