"""Routes that clients of vLLM and TGI query: tokenizer, health, limits."""

import pytest

from tests.support.servers import application


@pytest.mark.parametrize("text", ["", "the cat", "naïve mat\n" * 2000])
def test_detokenize_reverses_tokenize(client, text):
    vocabulary = client.app.state.services.models.current.vocabulary
    found = client.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()
    assert found["tokens"] == vocabulary.encode(text).tolist()
    assert (found["count"], found["max_model_len"], found["token_strs"]) == (len(text), 20_000, None)
    assert client.post("/detokenize", json={"tokens": found["tokens"]}).json() == {"prompt": text}


def test_tokenize_lists_characters_and_joins_messages(client):
    messages = [{"role": "system", "content": "the"}, {"role": "user", "content": "cat"}]
    found = client.post(
        "/tokenize", json={"messages": messages, "return_token_strs": True, "model": "tgi"}
    ).json()
    assert found["token_strs"] == list("the\ncat")
    assert found["tokens"] == client.post("/tokenize", json={"prompt": "the\ncat"}).json()["tokens"]


def test_completion_of_token_ids_equals_that_of_the_text(client):
    tokens = client.post("/tokenize", json={"prompt": "the "}).json()["tokens"]
    request = {"max_tokens": 20, "seed": 3}
    by_text, by_ids = (
        client.post("/v1/completions", json=request | {"prompt": prompt}).json()
        for prompt in ("the ", tokens)
    )
    assert by_text["choices"] == by_ids["choices"]
    assert by_text["usage"]["prompt_tokens"] == len(tokens)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/tokenize", {"prompt": "a €"}, "the model gru@60 has never seen: '€' at position 2"),
        ("/tokenize", {}, "prompt or messages is required"),
        ("/tokenize", {"prompt": "a", "messages": []}, "prompt or messages is required, but not both"),
        ("/detokenize", {"tokens": [1, 16]}, "tokens must hold ids from 0 to 15, of gru@60. Given: 16"),
        ("/detokenize", {"tokens": [-1]}, "Given: -1"),
        ("/tokenize", {"prompt": "a", "model": "grue"}, "grue"),
        ("/tokenizer_info?model=grue", None, "grue"),
    ],
)
def test_token_routes_have_the_openai_error_format(client, path, body, message):
    answer = client.get(path) if body is None else client.post(path, json=body)
    assert answer.status_code == (404 if "grue" in message else 400)
    assert message in answer.json()["error"]["message"]
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_tokenizer_info_has_the_fields_that_clients_read(client):
    info = client.get("/tokenizer_info").json()
    assert (info["bos_token"], info["eos_token"], info["vocab_size"]) == ("\n", "\n", 16)
    start = client.post("/tokenize", json={"prompt": info["bos_token"]}).json()["tokens"]
    request = {"max_tokens": 10, "seed": 3}
    empty, begun = (
        client.post("/v1/completions", json=request | {"prompt": prompt}).json()["choices"]
        for prompt in ("", start)
    )
    assert empty == begun  # clients send an empty prompt as bos_token


def test_info_has_the_model_and_the_limits(client):
    info = client.get("/info").json()
    assert (info["model_id"], info["max_input_tokens"], info["max_best_of"]) == ("gru@60", 10_000, 16)
    assert len(info["model_sha"]) == 64


def test_health_equals_readiness_and_needs_no_key(client, tmp_path):
    assert client.get("/health").json() == client.get("/readyz").json()
    with application(tmp_path / "empty", api_keys="ann:secret") as empty:
        assert empty.get("/health").status_code == 503
        assert empty.get("/info").status_code == 401


@pytest.mark.parametrize("digits", [20, 310, 4000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_token_id_out_of_range_is_refused_at_any_length(client, digits, sign):
    number = sign + "9" * digits
    for path, body in (
        ("/detokenize", '{"tokens": [1, %s]}'),
        ("/v1/completions", '{"prompt": [1, %s]}'),
        ("/v1/completions", '{"prompt": [[1], [%s]]}'),
    ):
        answer = client.post(path, content=body % number, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert "must hold ids from 0 to 15" in answer.json()["error"]["message"]


def test_bias_with_a_repeated_id_uses_the_last_value(client):
    request = {"prompt": "the ", "max_tokens": 40, "seed": 4}
    texts = [
        client.post("/v1/completions", json=request | {"logit_bias": bias}).json()["choices"][0]["text"]
        for bias in ({"3": 5.0, "03": -100, "003": 50}, {"3": 50})
    ]
    assert texts[0] == texts[1]
