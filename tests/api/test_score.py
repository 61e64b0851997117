"""POST /score: the probability of every character, and the model most likely to write a text."""

import math

import numpy as np
import pytest

from app.store.run_store import RunStore
from model.checkpoint import load
from model.loss import log_softmax


def by_hand(store: RunStore, run: str, step: int, text: str) -> tuple[list[float], list[int]]:
    """Log-probabilities and ranks of text[1:], from one pass of the network over the whole text."""
    checkpoint = load(store.get(run).checkpoint_path(step))
    network, ids = checkpoint.network(), checkpoint.vocabulary.encode(text)
    state = network.zero_state(1)
    logits = network.forward(ids[:-1, None], state)[0]
    logprobs = log_softmax(np.asarray(logits, np.float64)[:, 0])
    chosen = logprobs[np.arange(len(text) - 1), ids[1:]]
    return chosen.tolist(), (1 + (logprobs > chosen[:, None]).sum(axis=1)).tolist()


def test_every_character_has_its_log_probability_and_rank(client, trained_root):
    text = "the cat sat on a mat\n the dog ran"
    expected, ranks = by_hand(RunStore(trained_root), "gru", 40, text)
    score = client.post("/score", json={"text": text, "model": "gru@40"}).json()["scores"][0]
    assert score["logprobs"][0] is score["ranks"][0] is None
    assert score["logprobs"][1:] == pytest.approx(expected, abs=1e-4)
    assert score["ranks"][1:] == ranks
    assert score["bits"] == pytest.approx(-sum(expected) / math.log(2), rel=1e-4)
    assert score["bits_per_character"] == pytest.approx(score["bits"] / (len(text) - 1))
    assert score["nats_per_character"] == pytest.approx(-sum(expected) / (len(text) - 1), rel=1e-4)


def test_prompt_before_the_text_is_read_but_not_scored(client):
    whole = client.post("/score", json={"text": "the cat sat"}).json()["scores"][0]
    part = client.post("/score", json={"prompt": "the ", "text": "cat sat", "top": 2}).json()["scores"][0]
    assert part["logprobs"] == whole["logprobs"][4:]
    assert part["ranks"] == whole["ranks"][4:]
    assert [len(top) for top in part["top"]] == [2] * 7
    assert all(
        (rank == 1) == (max(top, key=top.get) == character)
        for rank, top, character in zip(part["ranks"], part["top"], "cat sat", strict=True)
    )


def test_scores_of_several_models_are_compared(client):
    names = ["gru", "gru@0", "classic"]
    answer = client.post("/score", json={"text": "the cat sat on the mat\n", "models": names}).json()
    assert [score["model"] for score in answer["scores"]] == ["gru@60", "gru@0", "classic@60"]
    bits = {score["model"]: score["bits"] for score in answer["scores"]}
    assert answer["likeliest"] == min(bits, key=bits.get)
    assert bits["gru@60"] < bits["gru@0"]


def test_text_of_one_character_has_no_score(client):
    answer = client.post("/score", json={"text": "a"}).json()
    assert answer["scores"][0]["bits_per_character"] is None
    assert answer["scores"][0]["logprobs"] == [None]


@pytest.mark.parametrize(
    ("request_", "field", "message"),
    [
        ({"text": ""}, "text", "at least 1 character"),
        ({"text": "a€"}, "text", "'€' at position 1"),
        ({"text": "a", "prompt": "ü"}, "prompt", "'ü' at position 0"),
        ({"text": "a" * 10_001}, "text", "at most 10000 characters. Given: 10001"),
        ({"text": "a", "models": ["gru"] * 9}, "models", "at most 8. Given: 9"),
        ({"text": "a", "models": ["gru"], "model": "gru"}, "models", "together with model"),
        ({"text": "a", "top": 6}, "top", "must be <= 5. Given: 6"),
    ],
)
def test_invalid_score_request_is_refused(client, request_, field, message):
    answer = client.post("/score", json=request_)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["field"] == field
    assert message in error["message"]
