"""Requests as clients send them by default: default values, nulls and fields without effect."""

import json
from typing import Any

import httpx
import pytest

CHAT = {"model": "gru", "messages": [{"role": "user", "content": "the "}], "max_tokens": 30, "seed": 8}
COMPLETION = {"model": "gru", "prompt": "the ", "max_tokens": 30, "seed": 8}

# sent by clients of OpenAI and of vLLM
SHARED_DEFAULTS = [
    {"response_format": {"type": "text"}},
    {"store": False},
    {"user": "u", "metadata": {"a": "b"}, "safety_identifier": "u", "prompt_cache_key": "k"},
    {"service_tier": "auto"},
    {"ignore_eos": True, "skip_special_tokens": True, "spaces_between_special_tokens": True},
    {"min_tokens": 0, "length_penalty": 1.0, "use_beam_search": False, "stop_token_ids": [], "bad_words": []},
    {"prompt_logprobs": None, "truncate_prompt_tokens": None, "return_tokens_as_token_ids": False},
    {"request_id": "r", "cache_salt": "s", "return_token_ids": False, "structured_outputs": None},
    {"stop": None, "n": None, "logit_bias": None, "stream": None, "stream_options": None},
    {"logit_bias": {}},
    {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "typical_p": 1.0},
]
CHAT_DEFAULTS = [
    {"modalities": ["text"], "audio": None, "prediction": None, "web_search_options": None},
    {"reasoning_effort": "medium", "verbosity": "medium"},
    {"tools": [], "tool_choice": "none", "parallel_tool_calls": True},
    {"tool_prompt": "Given the tools:", "guideline": None},  # sent by clients of TGI
    {"functions": [], "function_call": "auto"},
    {"prompt_cache_options": {"mode": "implicit", "ttl": "30m"}, "moderation": None},
    {"logprobs": False, "top_logprobs": 0},
    {"echo": False, "add_generation_prompt": True, "continue_final_message": False, "documents": None},
]
COMPLETION_DEFAULTS = [{"suffix": ""}, {"suffix": None}, {"echo": False, "best_of": 1, "logprobs": None}]


@pytest.mark.parametrize("fields", SHARED_DEFAULTS + CHAT_DEFAULTS, ids=str)
def test_chat_fields_at_their_default_change_nothing(client, fields):
    assert chat(client, **fields) == chat(client)


@pytest.mark.parametrize("fields", SHARED_DEFAULTS + COMPLETION_DEFAULTS, ids=str)
def test_completion_fields_at_their_default_change_nothing(client, fields):
    assert complete(client, **fields) == complete(client)


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "text", "strict": True}},
        {"store": True},
        {"modalities": ["text", "audio"]},
        {"audio": {"voice": "alloy", "format": "wav"}},
        {"prediction": {"type": "content", "content": "a"}},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tool_choice": "required"},
        {"functions": [{"name": "f"}]},
        {"min_tokens": 5},
        {"min_tokens": False},
        {"stop_token_ids": [3]},
        {"use_beam_search": True},
        {"moderation": {"model": "omni-moderation-latest"}},
        {"structured_outputs": {"regex": "a+"}},
        {"continue_final_message": True},
    ],
    ids=str,
)
def test_unsupported_chat_fields_are_refused_by_name(client, fields):
    answer = client.post("/v1/chat/completions", json=CHAT | fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, next(iter(fields)))
    assert f"{error['param']} is not supported: leave it out. Given: " in error["message"]


def test_completion_suffix_is_refused_by_name(client):
    error = client.post("/v1/completions", json=COMPLETION | {"suffix": "b"}).json()["error"]
    assert error["message"] == "suffix is not supported: leave it out. Given: 'b'"


def test_top_p_of_zero_selects_the_likeliest_character(client):
    greedy = client.post("/generate", json={"prompt": "the ", "length": 30, "temperature": 0}).json()["text"]
    assert chat(client, top_p=0)["choices"][0]["message"]["content"] == greedy
    assert complete(client, top_p=0, temperature=1)["choices"][0]["text"] == greedy
    native = client.post("/generate", json={"prompt": "the ", "length": 30, "top_p": 0}).json()
    assert native["text"] == greedy


def test_negative_seed_is_accepted_on_every_interface(client):
    seeds = (-1, -7, -(2**63), 1, 7)
    texts = {seed: complete(client, seed=seed)["choices"][0]["text"] for seed in seeds}
    assert len(set(texts.values())) == len(texts)
    for seed, text in texts.items():
        assert complete(client, seed=seed)["seed"] == seed
        body = {"prompt": "the ", "length": 30, "seed": seed}
        assert client.post("/generate", json=body).json()["text"] == text
        assert client.get("/generate", params=body).json()["text"] == text
        tgi = {"inputs": "the ", "parameters": {"max_new_tokens": 30, "seed": seed}}
        assert client.post("/generate", json=tgi).json()["generated_text"] == text


def test_completion_accepts_up_to_20_logprobs(client):
    logprobs = complete(client, logprobs=13)["choices"][0]["logprobs"]
    # one more if the character itself is not among them
    assert {len(top) for top in logprobs["top_logprobs"]} <= {13, 14}
    assert client.post("/v1/completions", json=COMPLETION | {"logprobs": 20}).status_code == 200
    error = client.post("/v1/completions", json=COMPLETION | {"logprobs": 21}).json()["error"]
    assert error["message"] == "logprobs must be <= 20. Given: 21"


@pytest.mark.parametrize("usage", [True, False])
def test_continuous_usage_stats_are_accepted_with_a_stream(client, usage):
    options = {"include_usage": True, "continuous_usage_stats": usage}
    request = COMPLETION | {"stream": True, "stream_options": options}
    with client.stream("POST", "/v1/completions", json=request) as answer:
        chunks = events(answer)
    assert chunks[-1]["usage"]["completion_tokens"] == 30


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", COMPLETION | {"prompt": "a" * 10_001}, "prompt"),
        ("/v1/completions", COMPLETION | {"prompt": [[1] * 10_001]}, "prompt"),
        (
            "/v1/chat/completions",
            CHAT | {"messages": [{"role": "user", "content": "a" * 10_001}]},
            "messages",
        ),
    ],
    ids=["prompt", "ids", "messages"],
)
def test_prompt_that_is_too_long_has_the_openai_error_code(client, path, body, param):
    error = client.post(path, json=body).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", param)
    assert "must have at most 10000 characters. Given: 10001" in error["message"]


@pytest.mark.parametrize("n", [1, 3])
def test_chat_stream_sends_role_text_and_reason_separately(client, n):
    request = CHAT | {"stream": True, "logprobs": True, "top_logprobs": 2, "n": n}
    with client.stream("POST", "/v1/chat/completions", json=request) as answer:
        chunks = [chunk["choices"][0] for chunk in events(answer)]
    whole = chat(client, logprobs=True, top_logprobs=2, n=n)["choices"]
    for index in range(n):
        first, *between, last = [chunk for chunk in chunks if chunk["index"] == index]
        assert first["delta"] == {"role": "assistant", "content": ""}
        assert (first["logprobs"], first["finish_reason"]) == (None, None)
        assert last == {"index": index, "delta": {}, "logprobs": None, "finish_reason": "length"}
        assert {tuple(chunk["delta"]) for chunk in between} == {("content",)}
        assert {chunk["finish_reason"] for chunk in between} == {None}
        text = "".join(chunk["delta"]["content"] for chunk in between)
        assert text == whole[index]["message"]["content"]
        entries = [entry for chunk in between for entry in chunk["logprobs"]["content"]]
        assert entries == whole[index]["logprobs"]["content"]


def test_chat_stream_without_text_has_role_and_reason(client):
    whole = chat(client)["choices"][0]["message"]["content"]
    with client.stream(
        "POST", "/v1/chat/completions", json=CHAT | {"stream": True, "stop": whole[0]}
    ) as answer:
        chunks = [chunk["choices"][0] for chunk in events(answer)]
    assert [chunk["delta"] for chunk in chunks] == [{"role": "assistant", "content": ""}, {}]
    assert [chunk["finish_reason"] for chunk in chunks] == [None, "stop"]


@pytest.mark.parametrize(
    "fields", [{}, {"echo": True, "logprobs": 2}, {"echo": True, "max_tokens": 0}], ids=str
)
def test_completion_stream_ends_with_a_separate_reason(client, fields):
    with client.stream("POST", "/v1/completions", json=COMPLETION | {"stream": True} | fields) as answer:
        *texts, last = [chunk["choices"][0] for chunk in events(answer)]
    whole = complete(client, **fields)["choices"][0]
    assert last == {"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}
    assert {chunk["finish_reason"] for chunk in texts} == {None}
    assert all(chunk["text"] for chunk in texts)
    assert "".join(chunk["text"] for chunk in texts) == whole["text"]


def test_typical_sampling_writes_the_same_on_every_interface(client):
    plain = complete(client)["choices"][0]["text"]
    typical = complete(client, typical_p=0.3)["choices"][0]["text"]
    assert typical != plain
    assert chat(client, typical_p=0.3)["choices"][0]["message"]["content"] == typical
    body = {"prompt": "the ", "length": 30, "seed": 8, "typical_p": 0.3}
    assert client.post("/generate", json=body).json()["text"] == typical
    assert client.get("/generate", params=body).json()["text"] == typical
    parameters = {"max_new_tokens": 30, "seed": 8, "typical_p": 0.3, "do_sample": False}
    tgi = client.post("/generate", json={"inputs": "the ", "parameters": parameters}).json()
    assert tgi["generated_text"] == typical


def chat(client: httpx.Client, **fields: object) -> dict[str, Any]:
    return anonymous(client.post("/v1/chat/completions", json=CHAT | fields))


def complete(client: httpx.Client, **fields: object) -> dict[str, Any]:
    return anonymous(client.post("/v1/completions", json=COMPLETION | fields))


def anonymous(answer: httpx.Response) -> dict[str, Any]:
    """The answer without the fields that differ between equal requests."""
    assert answer.status_code == 200, answer.text
    return {name: value for name, value in answer.json().items() if name not in ("id", "created")}


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of an OpenAI stream, which must end with [DONE]."""
    *lines, done = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert done == "[DONE]"
    return [json.loads(line) for line in lines]
