"""Answers whose size is a product of request fields: limited, built off the event loop, sent in parts."""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.api import answering
from app.api.openai import chat
from app.api.pieces import PART, Items, ascii_json, pieces, utf8_json
from app.engine.job import Chunk
from app.engine.order import LOGPROB_BYTES, Order
from app.server import streaming
from model.generation import Row
from tests.support.runs import wait_until

CHAT = {"messages": [{"role": "user", "content": "the "}], "seed": 8}
LARGE = CHAT | {"max_tokens": 3000, "logprobs": True, "top_logprobs": 20}
REQUESTS = [
    ("/v1/chat/completions", LARGE | {"n": 2}),
    (
        "/v1/completions",
        {"prompt": ["the ", "naïve"], "max_tokens": 900, "logprobs": 5, "echo": True, "seed": 1},
    ),
    (
        "/v1/completions",
        {"prompt": "the ", "max_tokens": 900, "logprobs": 0, "n": 3, "best_of": 5, "seed": 1},
    ),
    (
        "/",
        {"inputs": "naïve", "parameters": {"max_new_tokens": 900, "seed": 5, "details": True, "best_of": 3}},
    ),
    (
        "/generate",
        {
            "inputs": "naïve",
            "parameters": {
                "max_new_tokens": 900,
                "seed": 5,
                "details": True,
                "decoder_input_details": True,
                "top_n_tokens": 5,
                "stop": ["xyz"],
            },
        },
    ),
    ("/generate", {"prompt": "naïve", "length": 3000, "n": 3, "seed": 2}),
    ("/score", {"text": "the naïve cat\n" * 60, "models": ["gru", "classic"], "top": 5}),
    ("/score", {"text": "cat", "prompt": "the naïve " * 60, "top": 1}),
]


@pytest.mark.parametrize(
    ("path", "body", "field", "asked"),
    [
        ("/v1/chat/completions", LARGE | {"n": 16, "max_tokens": 10_000}, "top_logprobs", 16 * 10_004 * 21),
        (
            "/v1/completions",
            {"prompt": ["the "] * 20, "max_tokens": 10_000, "logprobs": 5, "n": 2},
            "logprobs",
            40 * 10_004 * 6,
        ),
        (
            "/",
            {
                "inputs": "the ",
                "parameters": {"max_new_tokens": 10_000, "best_of": 16, "details": True, "top_n_tokens": 5},
            },
            "top_n_tokens",
            16 * 10_004 * 6,
        ),
        ("/score", {"text": "a" * 10_000, "models": ["gru"] * 8, "top": 6 - 1, "prompt": ""}, "top", 480_000),
    ],
    ids=["chat", "completions", "tgi", "score"],
)
def test_request_over_the_budget_is_refused_with_its_figures(serving, trained_root, path, body, field, asked):
    client = serving(trained_root, max_logprobs=400_000)
    answer = client.post(path, json=body)
    assert answer.status_code in (400, 422)
    assert (
        f"{field} must request at most 400000 log-probabilities in all. Given: {asked} (texts: "
        in answer.text
    )
    assert "Request fewer texts, characters or alternatives" in answer.text


def test_largest_allowed_request_exceeds_the_default_budget(client):
    answer = client.post("/v1/chat/completions", json=LARGE | {"n": 16, "max_tokens": 10_000})
    assert "at most 500000 log-probabilities" in answer.json()["error"]["message"]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "body"), REQUESTS, ids=[path for path, _ in REQUESTS])
def test_answer_sent_in_parts_equals_the_whole_answer(client, monkeypatch, path, body):
    whole = client.post(path, json=body)
    expected = anonymous(whole.text)
    for large in (0, 10**9):
        monkeypatch.setattr(answering, "LARGE_BYTES", large)
        answer = client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert ("content-length" in answer.headers) == (large > 0)
        assert answer.headers["content-type"] == "application/json"
        assert anonymous(answer.text) == expected


def anonymous(text: str) -> str:
    """The answer without the fields that differ between equal requests."""
    answer = json.loads(text)
    if isinstance(answer, dict):
        answer.pop("id", None)
        answer.pop("created", None)
    return json.dumps(answer)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "body"), REQUESTS, ids=[path for path, _ in REQUESTS])
def test_large_answer_is_made_outside_the_event_loop_with_lazy_lists(client, monkeypatch, path, body):
    """Its jobs, its fields and its lists, whatever the route."""
    done, answers = [], []

    def noted(what: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*arguments: Any) -> Any:
            done.append((what, is_on_event_loop()))
            return work(*arguments)

        return noting

    monkeypatch.setattr(answering, "LARGE_BYTES", 0)
    monkeypatch.setattr(Order, "job", noted("job", Order.job))
    for name in ("text", "prompt_logprobs"):  # each answer has one of these
        read = vars(Row)[name].fget
        monkeypatch.setattr(Row, name, property(noted("fields", read)))
    monkeypatch.setattr(
        answering, "pieces", lambda value, dumps: answers.append(value) or pieces(value, dumps)
    )
    assert client.post(path, json=body).status_code == 200
    assert {what for what, _ in done} == {"job", "fields"}
    assert not [what for what, on_loop in done if on_loop]
    assert len(answers) == 1
    assert longest_list(answers[0]) <= 5


def longest_list(value: Any) -> int:
    """The length of the longest list in an answer, except for those that are made while it is sent."""
    if isinstance(value, dict):
        return max(map(longest_list, value.values()), default=0)
    return max(len(value), *map(longest_list, value), 0) if isinstance(value, list) else 0


def test_size_of_a_score_is_that_of_all_its_models(client, monkeypatch):
    text = "the cat " * 20
    monkeypatch.setattr(answering, "LARGE_BYTES", 1.5 * len(text) * (1 + LOGPROB_BYTES))
    for models, is_large in ((["gru"], False), (["gru", "classic"], True)):
        answer = client.post("/score", json={"text": text, "models": models})
        assert answer.status_code == 200
        assert ("content-length" not in answer.headers) == is_large


def test_large_answer_is_built_in_parts_off_the_event_loop(client, monkeypatch):
    calls = record_entries(monkeypatch)
    assert client.post("/v1/chat/completions", json=LARGE).status_code == 200
    assert sum(size for size, _ in calls) == 3000
    assert max(size for size, _ in calls) <= PART
    assert not any(on_loop for _, on_loop in calls)


def test_delayed_stream_is_sent_in_parts(client, monkeypatch):
    """Everything that the engine writes while the stream is delayed arrives at once."""
    calls = record_entries(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("app.engine.scheduler.CHUNK_SECONDS", 1000.0)
        answer = client.post("/v1/chat/completions", json=LARGE | {"max_tokens": 2000, "stream": True})
    assert answer.text.endswith("data: [DONE]\n\n")
    assert sum(size for size, _ in calls) == 2000
    assert max(size for size, _ in calls) <= streaming.TOLD_CHARACTERS


def test_other_requests_are_answered_between_the_parts_of_a_delayed_stream(client, monkeypatch):
    turns, entries, parts = [0], chat._entries, []

    def turn() -> None:
        turns[0] += 1

    def recorded(row: Row, begin: int, end: int) -> list[dict[str, Any]]:
        parts.append(turns[0])
        asyncio.get_running_loop().call_soon(turn)
        return entries(row, begin, end)

    monkeypatch.setattr(chat, "_entries", recorded)
    with monkeypatch.context() as patch:
        patch.setattr("app.engine.scheduler.CHUNK_SECONDS", 1000.0)
        client.post("/v1/chat/completions", json=LARGE | {"max_tokens": 1000, "stream": True})
    assert len(parts) > 1000 // streaming.TOLD_CHARACTERS
    assert parts == list(range(len(parts))), "parts were encoded in one turn of the event loop"


def record_entries(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """For each time entries of a chat answer are built: (characters, whether in the event loop)."""
    calls, entries = [], chat._entries

    def recorded(row: Row, begin: int, end: int) -> list[dict[str, Any]]:
        calls.append((end - begin, is_on_event_loop()))
        return entries(row, begin, end)

    monkeypatch.setattr(chat, "_entries", recorded)
    return calls


def is_on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def unread(client: httpx.Client, body: object) -> socket.socket:
    """A connection that sends a request and does not read its answer."""
    content = json.dumps(body).encode()
    connection = socket.create_connection((client.base_url.host, client.base_url.port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n"
    connection.sendall(f"{head}content-type: application/json\r\n\r\n".encode() + content)
    return connection


HUGE = LARGE | {"n": 2, "max_tokens": 10_000}  # 400,000 log-probabilities, about 25 MB


@pytest.mark.slow
def test_unread_large_answer_is_aborted_and_releases_its_place(serving, trained_root, monkeypatch):
    monkeypatch.setattr(answering, "LEAST_SECONDS", 0.3)
    monkeypatch.setattr(answering, "LEAST_SPEED", 10**9)
    client = serving(trained_root)
    answers = client.app.state.services.answers
    with unread(client, HUGE):
        wait_until(lambda: answers.taken == 1, "the answer has its place")
        wait_until(lambda: answers.taken == 0, "the answer was aborted")
    assert client.post("/generate", json={"length": 5}).status_code == 200


@pytest.mark.slow
def test_only_large_answers_take_a_limited_place(serving, trained_root, monkeypatch):
    monkeypatch.setattr("app.main.LARGE_ANSWERS", 1)
    client = serving(trained_root)
    answers = client.app.state.services.answers
    with unread(client, HUGE):
        wait_until(lambda: answers.taken == 1, "the answer has its place")
        refused = client.post("/v1/chat/completions", json=LARGE)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        small = CHAT | {"max_tokens": 20, "logprobs": True, "top_logprobs": 20}
        assert client.post("/v1/chat/completions", json=small).status_code == 200
    wait_until(lambda: answers.taken == 0, "a disconnected client releases the place")
    assert client.post("/v1/chat/completions", json=LARGE).status_code == 200
    wait_until(lambda: answers.taken == 0, "a client that has read everything releases it")


def test_refused_large_request_takes_no_place(client):
    answers = client.app.state.services.answers
    taken = answers.taken
    assert client.post("/v1/chat/completions", json=LARGE | {"stop": ["a"] * 9}).status_code == 400
    assert client.post("/score", json={"text": "a€" * 4000, "top": 5}).status_code == 422
    unknown_id = LARGE | {"logit_bias": {"99999": 1}}
    assert client.post("/v1/chat/completions", json=unknown_id).status_code == 400
    assert answers.taken == taken


@pytest.mark.parametrize("dumps", [ascii_json, utf8_json])
def test_joined_parts_equal_the_json_of_the_whole_value(dumps):
    numbers = [float(n) / 7 for n in range(PART * 3 + 5)]
    lazy = Items(len(numbers), lambda begin, end: numbers[begin:end])
    value = {
        "a": [{"ü": "\u2028é", "n": None}, [], {}, [1, [2]]],
        "list": lazy,
        "empty": Items(0, lambda *_: []),
    }
    eager = value | {"list": numbers, "empty": []}
    assert b"".join(pieces(value, dumps)) == dumps(eager)
    one = Items(1, lambda begin, end: ["x"][begin:end])
    assert list(pieces({"one": one}, dumps)) == [b'{"one":["x"]}']


def test_parts_are_built_only_when_requested():
    made = []

    def make(begin: int, end: int) -> list[str]:
        made.append(end)
        return ["x" * 1000] * (end - begin)

    parts = pieces(Items(100_000, make), ascii_json)
    assert not made
    assert len(next(parts)) < 1_000_000
    assert made == [PART]


@pytest.mark.parametrize("most", [1, 3, 4, 100])
def test_stream_chunks_are_split_without_loss(most):
    news = [Chunk(0, 5, "abcdefgh", "length"), Chunk(1, 0, "", "stop"), Chunk(2, 0, "xyz", None)]
    groups = list(streaming._bounded(news, most))
    assert all(sum(len(chunk.text) for chunk in group) <= most for group in groups)
    for chunk in news:
        parts = [part for group in groups for part in group if part.choice == chunk.choice]
        assert "".join(part.text for part in parts) == chunk.text
        assert [part.finish_reason for part in parts] == [None] * (len(parts) - 1) + [chunk.finish_reason]
        assert [part.start for part in parts] == [
            chunk.start + sum(len(before.text) for before in parts[:at]) for at in range(len(parts))
        ]
        assert all(part.text for part in parts) or len(parts) == 1
