"""Real clients written for other servers, used with this one."""

import dataclasses
import inspect
import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import yaml

from app.store.capacity import kernel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # in the code of the clients
    import llm
    import openai
    from huggingface_hub import ChatCompletionInput, InferenceClient, TextGenerationInputGenerateParameters
    from langchain_openai import OpenAI as LangChain

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture
def ai(client: httpx.Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{client.base_url}/v1".replace("//v1", "/v1"), api_key="none") as made:
        yield made


@pytest.fixture
def tgi(client: httpx.Client) -> InferenceClient:
    return InferenceClient(model=str(client.base_url).rstrip("/"), token="none")


def native(client: httpx.Client, **request: Any) -> dict[str, Any]:
    return client.post("/generate", json=request).raise_for_status().json()


def test_openai_completion_equals_the_native_text(client, ai):
    done = ai.completions.create(model="gru", prompt="the ", max_tokens=40, seed=3, temperature=0.7)
    same = native(client, model="gru", prompt="the ", length=40, seed=3, temperature=0.7)
    assert (done.choices[0].text, done.choices[0].finish_reason) == (same["text"], "length")
    assert (done.model, done.object) == (same["model"], "text_completion")
    assert done.system_fingerprint == f"{same['model']}-{same['digest'][:12]}-{kernel()}"
    assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens) == (4, 40, 44)


def test_openai_streams_the_same_bytes_and_usage(ai):
    request = {"model": "gru", "prompt": "the ", "max_tokens": 60, "seed": 3, "n": 2}
    whole = ai.completions.create(**request)
    texts, ends, usage = ["", ""], [None, None], None
    for chunk in ai.completions.create(**request, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            assert ends[choice.index] is None
            texts[choice.index] += choice.text
            ends[choice.index] = choice.finish_reason
    assert texts == [choice.text for choice in whole.choices]
    assert ends == ["length", "length"]
    assert usage == whole.usage


def test_openai_accepts_lists_of_prompts_and_of_ids(client, ai):
    request = {"model": "gru", "max_tokens": 20, "seed": 5, "n": 2}
    both = ai.completions.create(prompt=["the ", "a "], **request)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    alone = ai.completions.create(prompt="a ", **request)
    assert [choice.text for choice in both.choices[2:]] == [choice.text for choice in alone.choices]
    characters = sorted(set("".join(choice.text for choice in both.choices)))
    assert characters
    vocabulary = client.app.state.services.models.current.vocabulary
    ids = vocabulary.encode("a ").tolist()
    for prompt in (ids, [ids]):
        by_ids = ai.completions.create(prompt=prompt, **request)
        assert [choice.text for choice in by_ids.choices] == [choice.text for choice in alone.choices]


def test_openai_echo_and_logprobs_equal_the_score(client, ai):
    done = ai.completions.create(
        model="gru", prompt="the cat", max_tokens=12, seed=1, echo=True, logprobs=2, temperature=0.5
    )
    choice = done.choices[0]
    logprobs = choice.logprobs
    assert choice.text.startswith("the cat")
    assert "".join(logprobs.tokens) == choice.text
    assert logprobs.text_offset == list(range(len(choice.text)))
    assert logprobs.token_logprobs[0] is None
    assert logprobs.top_logprobs[0] is None
    pairs = zip(logprobs.tokens[1:], logprobs.top_logprobs[1:], strict=True)
    assert all(token in top for token, top in pairs)
    scored = client.post("/score", json={"text": choice.text, "model": "gru", "top": 2}).json()["scores"][0]
    assert scored["logprobs"] == logprobs.token_logprobs
    only = ai.completions.create(
        model="gru", prompt=choice.text, max_tokens=0, echo=True, logprobs=0, temperature=0.5
    )
    assert only.choices[0].text == choice.text
    assert only.choices[0].logprobs.token_logprobs == logprobs.token_logprobs


def test_openai_stream_has_the_echo_and_logprobs_of_the_answer(ai):
    request = {"model": "gru", "prompt": "the cat", "max_tokens": 30, "seed": 1, "echo": True, "logprobs": 3}
    whole = ai.completions.create(**request).choices[0]
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    text, logprobs = "", {name: [] for name in names}
    for chunk in ai.completions.create(**request, stream=True):
        text += chunk.choices[0].text
        if chunk.choices[0].text:  # the last event has only the reason
            for name in names:
                logprobs[name] += getattr(chunk.choices[0].logprobs, name)
    assert text == whole.text
    assert logprobs == {name: getattr(whole.logprobs, name) for name in names}


def test_openai_best_of_returns_the_likeliest_text(ai):
    request = {"model": "gru", "prompt": "a ", "max_tokens": 15, "seed": 2, "logprobs": 0}
    every = ai.completions.create(**request, n=6).choices
    mean = [sum(choice.logprobs.token_logprobs) / len(choice.text) for choice in every]
    order = sorted(range(6), key=lambda at: -mean[at])[:2]
    best = ai.completions.create(**request, n=2, best_of=6)
    assert [choice.text for choice in best.choices] == [every[at].text for at in order]
    assert best.usage.completion_tokens == 6 * 15


def test_openai_bias_penalties_and_stop_are_applied(client, ai):
    forbidden = client.app.state.services.models.current.vocabulary.encode("a")[0]
    request = {"prompt": "the ", "model": "gru", "max_tokens": 80, "seed": 4}
    done = ai.completions.create(**request, logit_bias={str(forbidden): -100}, frequency_penalty=0.4)
    assert "a" not in done.choices[0].text
    whole = ai.completions.create(**request).choices[0].text
    ended = ai.completions.create(**request, stop=[whole[30:33]]).choices[0]
    assert (ended.text, ended.finish_reason) == (whole[: whole.index(whole[30:33])], "stop")
    streamed = "".join(
        chunk.choices[0].text for chunk in ai.completions.create(**request, stop=[whole[30:33]], stream=True)
    )
    assert streamed == ended.text


def test_openai_without_max_tokens_uses_the_default_length(ai):
    assert len(ai.completions.create(model="gru", prompt="a ").choices[0].text) == 500


def test_openai_client_raises_its_exceptions_for_errors(ai):
    with pytest.raises(openai.NotFoundError) as missing:
        ai.completions.create(model="gpt-9", prompt="a")
    assert (missing.value.param, missing.value.code) == ("model", "model_not_found")
    assert missing.value.type == "invalid_request_error"
    assert missing.value.request_id
    with pytest.raises(openai.BadRequestError) as long:
        ai.completions.create(model="gru", prompt="a", max_tokens=20_000)
    assert "max_tokens must be <= 10000. Given: 20000" in long.value.message
    with pytest.raises(openai.BadRequestError) as unknown:
        ai.completions.create(model="gru", prompt="a €")
    assert (unknown.value.code, unknown.value.param) == ("unknown_characters", "prompt")
    for wrong in ({"temperature": 3}, {"n": 0}, {"logprobs": 21}, {"stop": ["a"] * 5}, {"suffix": "b"}):
        with pytest.raises(openai.BadRequestError) as refused:
            ai.completions.create(model="gru", prompt="a", **wrong)
        assert refused.value.param == next(iter(wrong))


def test_openai_lists_and_finds_models(ai):
    assert [model.id for model in ai.models.list()] == ["gru", "classic"]
    assert ai.models.retrieve("classic").id == "classic"
    assert ai.models.retrieve("gru@40").owned_by == "charloom"
    with pytest.raises(openai.NotFoundError):
        ai.models.retrieve("nobody")


def test_openai_chat_returns_a_message(client, ai):
    messages = [{"role": "system", "content": "the"}, {"role": "user", "content": "cat "}]
    request = {"model": "gru", "messages": messages, "max_tokens": 30, "seed": 8}
    whole = ai.chat.completions.create(**request, logprobs=True, top_logprobs=2)
    same = native(client, model="gru", prompt="the\ncat ", length=30, seed=8)
    assert whole.choices[0].message.content == same["text"]
    assert "".join(entry.token for entry in whole.choices[0].logprobs.content) == same["text"]
    chunks = list(ai.chat.completions.create(**request, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == same["text"]
    assert chunks[-1].choices[0].finish_reason == "length"


def test_huggingface_hub_generates_and_streams(client, tgi):
    request = {"max_new_tokens": 30, "seed": 6, "temperature": 0.9}
    same = native(client, prompt="the ", length=30, seed=6, temperature=0.9)
    assert tgi.text_generation("the ", **request) == same["text"]
    assert "".join(tgi.text_generation("the ", stream=True, **request)) == same["text"]
    assert tgi.text_generation("the ", return_full_text=True, **request) == "the " + same["text"]


def test_huggingface_hub_returns_details(tgi):
    request = {"max_new_tokens": 25, "seed": 6, "details": True}
    whole = tgi.text_generation("the ", decoder_input_details=True, top_n_tokens=2, **request)
    assert (whole.details.finish_reason, whole.details.generated_tokens) == ("length", 25)
    assert "".join(token.text for token in whole.details.tokens) == whole.generated_text
    assert [token.text for token in whole.details.prefill] == list("the ")
    assert whole.details.prefill[0].logprob is None
    events = list(tgi.text_generation("the ", stream=True, **request))
    assert [event.token.text for event in events] == list(whole.generated_text)
    assert [event.token.logprob for event in events] == [token.logprob for token in whole.details.tokens]
    assert all(event.generated_text is None for event in events[:-1])
    assert events[-1].generated_text == whole.generated_text
    assert (events[-1].details.finish_reason, events[-1].details.seed) == ("length", 6)


def test_tgi_omits_stop_strings_and_has_its_error_format(client, tgi):
    whole = tgi.text_generation("the ", max_new_tokens=60, seed=9)
    for stop in (whole[20:23], whole[0]):
        ended = tgi.text_generation("the ", max_new_tokens=60, seed=9, stop=[stop])
        streamed = list(tgi.text_generation("the ", max_new_tokens=60, seed=9, stop=[stop], stream=True))
        assert ended == "".join(streamed) == whole[: whole.index(stop)]
    for path, body in (
        ("/", {"inputs": "the ", "parameters": {"max_new_tokens": 0}}),
        ("/generate", {"inputs": "the ", "parameters": {"top_p": 2}}),
        ("/generate", {"inputs": "€"}),
        ("/generate_stream", {"inputs": "a", "parameters": {"max_new_tokens": 20_000}}),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == 422
        assert isinstance(answer.json()["error"], str)
        assert answer.json()["error_type"] == "validation"
    generated = client.post("/generate", json={"inputs": "the ", "parameters": {"seed": 9}}).json()
    assert generated["generated_text"].startswith(whole)


def test_tgi_greedy_and_best_of_are_applied(client, tgi):
    greedy = tgi.text_generation("the ", do_sample=False, max_new_tokens=20)
    assert greedy == native(client, prompt="the ", temperature=0, length=20)["text"]
    best = tgi.text_generation("a ", max_new_tokens=15, seed=2, best_of=4, details=True)
    assert len(best.details.best_of_sequences) == 3


SENT_OTHERWISE = {"extra_headers", "extra_query", "extra_body", "timeout"}  # not in the body


def parameters(method: Callable[..., Any]) -> set[str]:
    return inspect.signature(method).parameters.keys() - SENT_OTHERWISE


def test_every_parameter_of_the_openai_client_may_be_null(client, ai):
    chat = {"model": "gru", "messages": [{"role": "user", "content": "the "}], "max_tokens": 5, "seed": 1}
    completion = {"model": "gru", "prompt": "the ", "max_tokens": 5, "seed": 1}
    for path, create, body in (
        ("/v1/chat/completions", ai.chat.completions.create, chat),
        ("/v1/completions", ai.completions.create, completion),
    ):
        nulls = dict.fromkeys(parameters(create))
        assert body.keys() < nulls.keys()
        told, expected = (client.post(path, json=sent) for sent in (nulls | body, body))
        assert told.status_code == 200, told.text
        assert told.json()["choices"] == expected.json()["choices"]
    job = dict.fromkeys(parameters(ai.fine_tuning.jobs.create)) | {"model": "auto", "training_file": "file-0"}
    refused = client.post("/v1/fine_tuning/jobs", json=job)
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, None), refused.text


def test_every_parameter_of_huggingface_hub_may_be_null(client):
    named = {field.name: None for field in dataclasses.fields(TextGenerationInputGenerateParameters)}
    assert {"typical_p", "top_n_tokens", "grammar"} < named.keys()
    body = {"inputs": "the ", "parameters": named | {"max_new_tokens": 5, "seed": 1}}
    told = client.post("/generate", json=body)
    assert told.status_code == 200, told.text
    chat = {field.name: None for field in dataclasses.fields(ChatCompletionInput)}
    chat |= {"messages": [{"role": "user", "content": "the "}], "max_tokens": 5, "seed": 1}
    answer = client.post("/v1/chat/completions", json=chat)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == told.json()["generated_text"]


def test_langchain_completion_returns_text(client):
    chain = LangChain(
        model="gru",
        base_url=str(client.base_url).rstrip("/") + "/v1",
        api_key="none",
        n=2,
        seed=7,
        max_tokens=20,
    )
    result = chain.generate(["the ", "a "])
    texts = [[generation.text for generation in group] for group in result.generations]
    assert [len(group) for group in texts] == [2, 2]
    assert texts[1][0] == native(client, model="gru", prompt="a ", length=20, seed=7, temperature=0.7)["text"]
    assert "".join(chain.stream("a ")) != ""


def test_llm_completion_and_chat_return_text(client, monkeypatch, tmp_path):
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    base = str(client.base_url).rstrip("/") + "/v1"
    models = [
        {"model_id": "loom", "model_name": "gru", "api_base": base, "completion": True},
        {"model_id": "loom-chat", "model_name": "gru", "api_base": base},
    ]
    (tmp_path / "extra-openai-models.yaml").write_text(yaml.safe_dump(models))
    for name in ("loom", "loom-chat"):
        model = llm.get_model(name)
        model.key = "none"
        assert len(model.prompt("the ", seed=3).text()) == 500
        streamed = model.prompt("the ", stream=True, seed=3)
        assert "".join(streamed) == native(client, model="gru", prompt="the ", seed=3)["text"]


def test_error_in_an_openai_stream_ends_it_with_done(serving, trained_root):
    with serving(trained_root, deadline_seconds=0.2, max_length=3_000_000).stream(
        "POST", "/v1/completions", json={"prompt": "a", "max_tokens": 3_000_000, "stream": True}
    ) as answer:
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    error = json.loads(lines[-2].removeprefix("data: "))["error"]
    assert (error["code"], error["type"]) == ("deadline_exceeded", "server_error")


def test_huggingface_hub_chat_needs_only_a_url(client, tgi):
    messages = [{"role": "user", "content": "the cat "}]
    expected = native(client, prompt="the cat ", length=30, seed=8)["text"]
    whole = tgi.chat_completion(messages, max_tokens=30, seed=8)
    assert whole.choices[0].message.content == expected
    parts = [part.choices[0] for part in tgi.chat_completion(messages, max_tokens=30, seed=8, stream=True)]
    assert "".join(part.delta.content or "" for part in parts) == expected
    assert [part.finish_reason for part in parts[-2:]] == [None, "length"]


def test_huggingface_hub_sends_typical_p(client, tgi):
    expected = native(client, prompt="the ", length=30, seed=6, typical_p=0.3)["text"]
    assert tgi.text_generation("the ", max_new_tokens=30, seed=6, typical_p=0.3) == expected


def test_openai_stream_helper_returns_the_whole_answer(ai):
    messages = [{"role": "user", "content": "the cat "}]
    # ends by a stop string: the helper raises if the finish reason is "length"
    request = {"model": "gru", "messages": messages, "max_tokens": 2000, "seed": 8, "n": 2, "stop": "\n"}
    request |= {"logprobs": True, "top_logprobs": 2}
    whole = ai.chat.completions.create(**request)
    with ai.chat.completions.stream(**request) as stream:
        summed = stream.get_final_completion()
    for choice, expected in zip(summed.choices, whole.choices, strict=True):
        assert choice.message.content == expected.message.content
        assert choice.finish_reason == expected.finish_reason
        assert choice.logprobs.content == expected.logprobs.content


def test_openai_stream_has_all_text_before_the_reason(ai):
    request = {"model": "gru", "prompt": "the ", "max_tokens": 60, "seed": 3}
    text = ""
    for chunk in ai.completions.create(**request, stream=True):
        if chunk.choices[0].finish_reason:
            break
        text += chunk.choices[0].text
    assert text == ai.completions.create(**request).choices[0].text
