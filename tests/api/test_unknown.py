"""Unknown characters on every interface; line ends and byte order marks in prompts."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.store.run_store import RunStore
from app.training.trainer import train_run
from tests.support.runs import classic_like
from tests.support.servers import application

PROMPT = "thé “cat”"  # the small text has no é and no quotation marks
READ = {"drop": "th cat", "replace": "the cat"}
CHANGED = 3


@pytest.fixture(scope="module")
def lenient(trained_root: Path) -> Iterator[httpx.Client]:
    with application(trained_root, unknown="replace") as client:
        yield client


@pytest.fixture
def dna(serving: Callable[..., httpx.Client], trained: RunStore) -> httpx.Client:
    """A server whose default model knows four letters and nothing else."""
    train_run(trained.create("dna", classic_like(), "GATTACACCGT" * 300, "dna.txt"), lambda: False)
    return serving(trained.root, model="dna")


def native(client: httpx.Client, prompt: str, **fields: object) -> httpx.Response:
    return client.post("/generate", json={"prompt": prompt, "length": 30, "seed": 8, **fields})


def chat(client: httpx.Client, *texts: str, **fields: object) -> httpx.Response:
    messages = [{"role": "user", "content": text} for text in texts]
    return client.post(
        "/v1/chat/completions", json={"messages": messages, "max_tokens": 30, "seed": 8, **fields}
    )


@pytest.mark.parametrize("how", ["drop", "replace"])
def test_unknown_characters_of_a_prompt_are_dropped_or_replaced(client, how):
    expected = native(client, READ[how]).json()
    answer = native(client, PROMPT, unknown=how).json()
    assert (answer["text"], answer["prompt"], answer["changed_characters"]) == (
        expected["text"],
        READ[how],
        CHANGED,
    )
    link = client.get("/generate", params={"prompt": PROMPT, "length": 30, "seed": 8, "unknown": how}).json()
    assert link == answer
    answer = chat(client, PROMPT, unknown=how).json()
    assert answer["choices"][0]["message"]["content"] == expected["text"]
    assert (answer["changed_characters"], answer["usage"]["prompt_tokens"]) == (CHANGED, len(READ[how]))
    completion = {
        "prompt": [PROMPT, "a"],
        "max_tokens": 30,
        "seed": 8,
        "unknown": how,
        "echo": True,
        "logprobs": 0,
    }
    answer = client.post("/v1/completions", json=completion).json()
    assert answer["choices"][0]["text"] == READ[how] + expected["text"]
    assert "".join(answer["choices"][0]["logprobs"]["tokens"]) == READ[how] + expected["text"]
    assert answer["changed_characters"] == CHANGED
    tgi = {"inputs": PROMPT, "parameters": {"max_new_tokens": 30, "seed": 8, "unknown": how}}
    answer = client.post("/generate", json=tgi).json()
    assert answer == {"generated_text": expected["text"], "changed_characters": CHANGED}
    tokens = client.post(
        "/tokenize", json={"prompt": PROMPT, "unknown": how, "return_token_strs": True}
    ).json()
    assert ("".join(tokens["token_strs"]), tokens["changed_characters"]) == (READ[how], CHANGED)


def test_streams_report_the_number_of_changed_characters(client):
    expected = native(client, READ["replace"]).json()["text"]
    answer = native(client, PROMPT, unknown="replace", stream=True)
    done = json.loads(answer.text.split("event: done\ndata: ")[1])
    assert (done["text"], done["changed_characters"]) == (expected, CHANGED)
    answer = chat(client, PROMPT, unknown="replace", stream=True)
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert {chunk["changed_characters"] for chunk in chunks} == {CHANGED}
    tgi = {"inputs": PROMPT, "parameters": {"max_new_tokens": 30, "seed": 8, "unknown": "replace"}}
    events = client.post("/generate_stream", json=tgi).text.splitlines()
    last = json.loads([line for line in events if line][-1].removeprefix("data:"))
    assert (last["generated_text"], last["changed_characters"]) == (expected, CHANGED)


def test_score_uses_the_text_that_each_model_reads(client):
    text = {"text": "“cat” sat", "prompt": "thé "}
    scored = client.post(
        "/score", json=text | {"unknown": "replace", "models": ["gru", "classic"], "top": 2}
    ).json()
    plain = client.post(
        "/score", json={"text": "cat sat", "prompt": "the ", "models": ["gru", "classic"], "top": 2}
    )
    for score, expected in zip(scored["scores"], plain.json()["scores"], strict=True):
        assert (score.pop("text"), score.pop("changed_characters")) == ("cat sat", CHANGED)
        assert score == expected
    nothing = client.post("/score", json={"text": "€", "unknown": "drop"})
    assert (nothing.status_code, nothing.json()["error"]["field"]) == (422, "text")
    assert "text has no character that gru@60 knows" in nothing.text


@pytest.mark.parametrize("how", ["drop", "replace"])
def test_activations_use_the_changed_text(client, how):
    body = {"text": PROMPT, "layer": 0, "unit": 0}
    refused = client.post("/activations", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "unknown_characters")
    answer = client.post("/activations", json=body | {"unknown": how}).json()
    assert (answer["text"], answer["changed_characters"]) == (READ[how], CHANGED)
    known = client.post("/activations", json=body | {"text": READ[how]}).json()
    assert answer["values"] == known["values"]
    assert "changed_characters" not in known
    nothing = client.post("/activations", json={"text": "“”", "unknown": "drop"})
    assert "text has no character that" in nothing.json()["error"]["message"]
    assert client.post("/activations", json=body | {"text": "the\r\ncat"}).json()["text"] == "the\ncat"


def test_default_mode_refuses_and_adds_no_fields_to_answers(client):
    for answer in (native(client, PROMPT), chat(client, PROMPT), native(client, PROMPT, unknown="refuse")):
        assert answer.status_code in (400, 422)
        assert "'é' at position 2" in answer.text
        assert "the model gru@60" in answer.text
    for answer in (native(client, "the "), chat(client, "the "), native(client, "the ", unknown="refuse")):
        assert "changed_characters" not in answer.json()
    scored = client.post("/score", json={"text": "the"}).json()["scores"][0]
    assert not {"text", "changed_characters"} & scored.keys()


def test_configured_mode_applies_to_requests_without_one(client, lenient):
    expected = native(client, READ["replace"]).json()["text"]
    assert native(lenient, PROMPT).json()["text"] == expected
    assert chat(lenient, PROMPT).json()["choices"][0]["message"]["content"] == expected
    tgi = {"inputs": PROMPT, "parameters": {"max_new_tokens": 30, "seed": 8}}
    assert lenient.post("/generate", json=tgi).json()["generated_text"] == expected
    assert native(lenient, PROMPT, unknown="refuse").status_code == 422
    assert native(lenient, "the ").json()["changed_characters"] == 0


def test_invalid_mode_is_refused_with_the_valid_modes(client):
    assert (
        "unknown must be one of 'refuse', 'drop' or 'replace'. Given: 'skip'"
        in native(client, "a", unknown="skip").text
    )


def test_replacement_longer_than_the_limit_is_refused(serving, trained_root):
    client = serving(trained_root, max_prompt=4)
    assert native(client, "㎜㎜", unknown="replace").json()["prompt"] == "mmmm"
    error = native(client, "㎜㎜㎜", unknown="replace").json()["error"]
    assert error["message"] == "prompt must have at most 4 characters. Given: 6"


def test_unknown_separator_of_chat_messages_is_not_an_error(dna):
    answer = chat(dna, "ACGT", "GATTACA", max_tokens=4)
    assert answer.status_code == 200
    assert (
        answer.json()["choices"][0]["message"]["content"]
        == native(dna, "ACGTGATTACA", length=4).json()["text"]
    )
    tokens = dna.post("/tokenize", json={"messages": [{"role": "user", "content": "A"}] * 3}).json()
    assert tokens["count"] == 3


def test_line_ends_and_byte_order_marks_in_prompts_are_normalised(client):
    expected = native(client, "the\ncat ").json()["text"]
    for prompt in ("the\r\ncat ", "the\rcat ", "\ufeffthe\ncat "):
        assert native(client, prompt).json()["text"] == expected
        assert chat(client, prompt).json()["choices"][0]["message"]["content"] == expected
        completion = {"prompt": prompt, "max_tokens": 30, "seed": 8}
        assert client.post("/v1/completions", json=completion).json()["choices"][0]["text"] == expected
        tgi = {"inputs": prompt, "parameters": {"max_new_tokens": 30, "seed": 8}}
        assert client.post("/generate", json=tgi).json()["generated_text"] == expected
    refused = native(client, "the\r\n€").json()["error"]
    assert refused["details"][0]["position"] == 5


def test_line_ends_in_stop_strings_are_normalised(client):
    plain = native(client, "the ", length=300, stop="\n").json()
    assert plain["finish_reason"] == "stop"
    for stop in ("\r\n", ["\r\n", "zz"], "\ufeff\n", "\r"):
        assert native(client, "the ", length=300, stop=stop).json() == plain
    assert native(client, "the ", length=300, stop="\ufeff").json()["finish_reason"] == "length"
