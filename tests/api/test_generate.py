"""POST and GET /generate: texts, refusals, and behaviour under load."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from pydantic import TypeAdapter

from app.api.native.generate import BODIES, AnyBody
from app.api.native.text_schemas import GenerateBody, GenerateResponse
from app.errors import OverloadedError
from app.server.problems import problem_of
from app.store.run_store import RunStore
from model.checkpoint import load
from model.generation import generate
from model.sampling import SamplingConfig
from tests.support.runs import wait_until
from tests.support.stores import announce


def test_answer_contains_everything_to_reproduce_it(client: httpx.Client):
    first = client.post("/generate", json={"prompt": "the cat", "length": 50, "temperature": 0.9}).json()
    assert len(first["text"]) == first["length"] == 50
    assert (first["prompt"], first["finish_reason"]) == ("the cat", "length")
    assert (first["model"], first["step"]) == ("gru@60", 60)
    assert first["losses"]["smooth_loss"] > 0
    again = {"prompt": "the cat", "length": 50, "temperature": 0.9}
    again |= {"model": first["model"], "seed": first["seed"]}
    assert client.post("/generate", json=again).json() == first


@pytest.mark.parametrize("more", [{}, {"n": 3}, {"unknown": "drop"}, {"stop": "a"}])
def test_answer_matches_its_schema(client: httpx.Client, more: dict[str, object]):
    answer = client.post("/generate", json={"prompt": "the cat", "length": 50, "seed": 2} | more).json()
    described = GenerateResponse.model_validate(answer, strict=True, extra="forbid")
    assert json.dumps(described.model_dump(exclude_unset=True)) == json.dumps(answer)  # in the same order
    assert ("choices" in answer, "changed_characters" in answer) == ("n" in more, "unknown" in more)


def test_texts_without_a_seed_differ(client: httpx.Client):
    answers = [client.post("/generate", json={"length": 40}).json() for _ in range(3)]
    assert len({answer["seed"] for answer in answers}) == len({answer["text"] for answer in answers}) == 3


def test_text_over_http_equals_the_text_of_the_model_alone(client: httpx.Client, trained_root):
    checkpoint = load(RunStore(trained_root).get("gru").checkpoint_path(40))
    sampling = SamplingConfig(temperature=0.7, top_k=5, top_p=0.8)
    alone = generate(checkpoint.network(), checkpoint.vocabulary, "the ", 80, sampling, seed=3)
    request = {"prompt": "the ", "length": 80, "temperature": 0.7, "top_k": 5, "top_p": 0.8, "seed": 3}
    answer = client.post("/generate", json=request | {"model": "gru@40"}).json()
    assert answer["text"] == alone.text
    assert answer["digest"] == checkpoint.digest


def test_query_parameters_return_the_same_text_as_a_body(client: httpx.Client):
    request = {"prompt": "a ", "length": 60, "temperature": 0.5, "seed": 9, "stop": ["o", "dog"]}
    assert client.get("/generate", params=request).json() == client.post("/generate", json=request).json()


def test_null_field_is_the_same_as_an_absent_one(client: httpx.Client):
    nulls = dict.fromkeys(GenerateBody.model_fields)
    answer = client.post("/generate", json=nulls | {"seed": 1, "length": 20}).json()
    assert answer == client.post("/generate", json={"seed": 1, "length": 20}).json()


def test_empty_prompt_starts_from_a_line_break(client: httpx.Client):
    empty = client.post("/generate", json={"seed": 5, "length": 30}).json()
    line_break = client.post("/generate", json={"seed": 5, "length": 30, "prompt": "\n"}).json()
    assert empty["prompt"] == ""
    assert empty["text"] == line_break["text"]


def test_text_ends_before_a_stop_string(client: httpx.Client):
    whole = client.post("/generate", json={"seed": 2, "length": 200}).json()["text"]
    stop = whole[20:24]
    ended = client.post("/generate", json={"seed": 2, "length": 200, "stop": stop}).json()
    assert ended["text"] == whole[: whole.index(stop)]
    assert (ended["finish_reason"], ended["length"]) == ("stop", len(ended["text"]))


def test_temperature_0_gives_the_same_text_for_any_seed(client: httpx.Client):
    texts = {
        client.post("/generate", json={"temperature": 0, "seed": seed, "length": 60}).json()["text"]
        for seed in range(4)
    }
    assert len(texts) == 1


def test_unknown_characters_are_reported_with_their_positions(client: httpx.Client):
    content = json.dumps({"prompt": "a cöt €\ud800"})
    response = client.post("/generate", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 422
    error = response.json()["error"]
    assert (error["code"], error["field"]) == ("unknown_characters", "prompt")
    assert [(fault["position"], fault["code_point"]) for fault in error["details"]] == [
        (3, "U+00F6"),
        (6, "U+20AC"),
        (7, "U+D800"),
    ]
    assert "'ö' at position 3" in error["message"]


REFUSED = [
    ({"temperature": 2.1}, "temperature", "must be <= 2. Given: 2.1"),
    ({"temperature": -0.1}, "temperature", "must be >= 0. Given: -0.1"),
    ({"temperature": "hot"}, "temperature", "must be a number. Given: 'hot'"),
    ({"temperature": True}, "temperature", "must be a number. Given: True"),
    ({"top_p": -0.1}, "top_p", "must be >= 0. Given: -0.1"),
    ({"typical_p": 0}, "typical_p", "must be > 0. Given: 0"),
    ({"top_p": 1.01}, "top_p", "must be <= 1. Given: 1.01"),
    ({"top_k": -2}, "top_k", "must be >= -1. Given: -2"),
    ({"top_k": 1.5}, "top_k", "must be a whole number. Given: 1.5"),
    ({"length": 0}, "length", "must be >= 1. Given: 0"),
    ({"length": 10_001}, "length", "must be <= 10000. Given: 10001"),
    ({"length": "5"}, "length", "must be a whole number. Given: '5'"),
    ({"seed": -(2**63) - 1}, "seed", "must be >= -9223372036854775808"),
    ({"seed": 2**63}, "seed", "must be <= 9223372036854775807"),
    ({"prompt": 5}, "prompt", "must be a string. Given: 5"),
    ({"prompt": "a" * 10_001}, "prompt", "must have at most 10000 characters. Given: 10001"),
    ({"stop": ["a"] * 5}, "stop", "must hold at most 4 strings. Given: 5"),
    ({"stop": "a" * 101}, "stop", "must hold strings of at most 100 characters"),
    ({"stop": ""}, "stop", "at least 1 character"),
    ({"stop": ["a", ""]}, "stop", "at least 1 character"),
    ({"lenght": 5}, "lenght", "is not a field of this request"),
]


@pytest.mark.parametrize(("request_", "field", "message"), REFUSED)
def test_value_outside_a_limit_is_refused_with_limit_and_value(client, request_, field, message):
    response = client.post(
        "/generate", content=json.dumps(request_), headers={"content-type": "application/json"}
    )
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["code"] == "invalid_request"
    assert error["field"].split(".")[0] == field
    assert message in error["message"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_non_finite_numbers_are_refused(client: httpx.Client, value: str):
    headers = {"content-type": "application/json"}
    for response in (
        client.post("/generate", content=f'{{"temperature": {value}}}', headers=headers),
        client.get("/generate", params={"temperature": value}),
    ):
        assert response.status_code == 422
        assert "temperature must be" in response.json()["error"]["message"]


def test_several_errors_of_a_request_are_all_listed(client: httpx.Client):
    error = client.post("/generate", json={"temperature": 3, "top_p": 2, "x": 1}).json()["error"]
    assert [fault["field"] for fault in error["details"]] == ["temperature", "top_p", "x"]
    assert error["message"].endswith("(and 2 more)")


@pytest.mark.parametrize(
    ("content", "content_type", "status", "message"),
    [
        (b'{"prompt": ', "application/json", 400, "the body is not JSON"),
        (b"\xff\xfe", "application/json", 400, ""),
        (b"[1]", "application/json", 422, "must be a JSON object"),
        (b'{"prompt": "a"}', "text/plain", 422, "sent with Content-Type: application/json"),
        (b"", "application/json", 422, "body is required"),
        (b"[" * 100_000, "application/json", 400, ""),
        (b'{"\\ud800": 1}', "application/json", 422, ""),
    ],
)
def test_body_that_is_not_a_request_is_refused(client: httpx.Client, content, content_type, status, message):
    response = client.post("/generate", content=content, headers={"content-type": content_type})
    assert response.status_code == status
    assert message in response.json()["error"]["message"]


def test_oversized_body_is_refused_with_or_without_a_length(client: httpx.Client):
    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 100_000

    for content, given in ((b" " * 1_000_001, "1000001 bytes"), (pieces(), "more")):
        response = client.post("/generate", content=content, headers={"content-type": "application/json"})
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "body_too_large"
        assert response.json()["error"]["message"] == (
            f"the body must be at most 1000000 bytes. Given: {given}"
        )


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("nothing", 404, "model_not_found"),
        ("gru@61", 404, "model_not_found"),
        ("../../etc", 404, "model_not_found"),
        ("a" * 500, 404, "model_not_found"),
        ("\ud800", 404, "model_not_found"),
    ],
)
def test_unknown_model_is_refused(client: httpx.Client, name, status, code):
    response = client.post(
        "/generate", content=json.dumps({"model": name}), headers={"content-type": "application/json"}
    )
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_requested_model_generates_the_text(client: httpx.Client):
    for name, run in (("classic", "classic@60"), ("classic@20", "classic@20"), ("gru@best", "gru@")):
        answer = client.post("/generate", json={"model": name, "length": 5}).json()
        assert answer["model"].startswith(run)


def test_generate_without_a_checkpoint_is_503_not_ready(serving, tmp_path):
    response = serving(tmp_path).post("/generate", json={})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "not_ready"
    assert "start a worker" in response.json()["error"]["message"]
    assert int(response.headers["retry-after"]) >= 1


def engine_is_idle(client: httpx.Client) -> bool:
    stats = client.app.state.services.engine.stats()  # type: ignore[attr-defined]
    return stats.running == stats.waiting == 0


LONG = 3_000_000  # characters: far more than are written during a test


@pytest.mark.slow
def test_text_of_a_disconnected_client_is_cancelled(serving, trained_root):
    client = serving(trained_root, max_length=LONG)
    with pytest.raises(httpx.ReadTimeout):
        client.post("/generate", json={"length": LONG}, timeout=0.3)
    wait_until(lambda: engine_is_idle(client), "the engine is idle again")


def test_text_over_the_time_limit_is_abandoned(serving, trained_root):
    client = serving(trained_root, max_length=LONG, deadline_seconds=0.2)
    response = client.post("/generate", json={"length": LONG})
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
    wait_until(lambda: engine_is_idle(client), "the engine is idle again")


@pytest.mark.slow
def test_request_over_the_capacity_is_refused_before_any_work(serving, trained_root):
    client = serving(trained_root, max_length=LONG, max_rows=1, max_queue=0)
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(client.post, "/generate", json={"length": LONG}, timeout=1)
        wait_until(lambda: not engine_is_idle(client), "the long text is being written")
        response = client.post("/generate", json={"length": 5})
        assert (response.status_code, response.json()["error"]["code"]) == (429, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
        assert int(response.headers["retry-after-ms"]) >= 1
        assert client.get("/healthz").status_code == 200
        with pytest.raises(httpx.ReadTimeout):
            long.result()


@pytest.mark.slow
def test_text_in_progress_is_not_changed_by_a_new_checkpoint(serving, trained: RunStore):
    client = serving(trained.root, max_length=LONG)
    request = {"length": 80_000, "seed": 4}
    undisturbed = client.post("/generate", json=request | {"model": "gru@60"}).json()
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(client.post, "/generate", json=request)
        wait_until(lambda: not engine_is_idle(client), "the long text is being written")
        announce(trained.get("gru"), 70, b"")
        wait_until(lambda: client.get("/readyz").json()["step"] == 70, "the new checkpoint is served")
        assert client.post("/generate", json={"length": 5}).json()["model"] == "gru@70"
        assert not long.done(), "the text ended before the new checkpoint was served"
        assert long.result().json() == undisturbed


@pytest.mark.slow
def test_same_request_gives_the_same_text_among_concurrent_ones(client: httpx.Client):
    def ask(seed: int) -> str:
        return client.post(
            "/generate", json={"seed": seed % 8, "length": 50 + seed % 8, "top_p": 0.9}
        ).json()["text"]

    alone = [ask(seed) for seed in range(8)]
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(ask, range(160)))
    assert together == alone * 20


def test_examples_of_the_documentation_are_valid():
    for example in BODIES.values():
        TypeAdapter(AnyBody).validate_python(example["value"])


def test_overload_is_refused_with_a_retry_time():
    headers = problem_of(OverloadedError("full", retry_after=1.25)).headers()
    assert headers == {"Retry-After": "2", "retry-after-ms": "1250"}
