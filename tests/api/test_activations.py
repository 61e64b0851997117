"""POST /activations: the values of a hidden unit along a text, and the units that follow a feature of it."""

import pytest

from app.store.run_store import RunStore
from model.checkpoint import load
from tests.support.networks import reference_units


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
