"""The model for requests that name none, or name one only because their client requires it."""

import json
import shutil

import httpx
import pytest

from app.settings import Settings
from app.store.run_store import RunStore
from app.training.trainer import train_run
from model.errors import ConfigError
from tests.support.runs import classic_like, small_text, wait_until

CHAT = {"messages": [{"role": "user", "content": "the "}], "max_tokens": 20, "seed": 8}


def answered_by(client: httpx.Client, **fields: object) -> str:
    return client.post("/generate", json={"length": 5, **fields}).raise_for_status().json()["model"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [("", "gru@60"), ("classic", "classic@60"), ("gru@40", "gru@40"), ("classic@0", "classic@0")],
)
def test_configured_model_answers_requests_without_a_model(serving, trained_root, model, expected):
    client = serving(trained_root, model=model)
    wait_until(lambda: client.get("/readyz").status_code == 200, "the server is ready")
    assert client.get("/readyz").json()["model"] == expected
    assert answered_by(client) == expected
    chat = client.post("/v1/chat/completions", json=CHAT).json()
    assert chat["model"] == expected
    assert client.get("/v1/models").json()["data"][0]["id"] == expected.partition("@")[0]
    assert client.get("/info").json()["model_id"] == expected
    # other models can still be requested by name
    assert [answered_by(client, model=name) for name in ("gru", "classic@0")] == ["gru@60", "classic@0"]


def test_configured_best_follows_the_best_checkpoint_of_the_run(serving, trained_root):
    best = RunStore(trained_root).get("gru").latest().best
    client = serving(trained_root, model="gru@best")
    answer = client.post("/generate", json={"length": 5}).json()
    assert (answer["step"], answer["digest"]) == (best.step, best.digest)
    assert answered_by(client, model="gru") == "gru@60"


@pytest.mark.slow
def test_configured_model_stays_the_default_after_other_runs(serving, trained):
    client = serving(trained.root, model="gru")
    free = serving(trained.root)
    assert answered_by(client) == answered_by(free) == "gru@60"
    train_run(trained.create("dna", classic_like(), "GATTACA" * 300, "dna.txt"), lambda: False)
    wait_until(lambda: answered_by(free) == "dna@60", "the newest run answers if none is configured")
    assert answered_by(client) == "gru@60"


@pytest.mark.slow
def test_configured_model_without_a_checkpoint_is_reported(serving, trained):
    client = serving(trained.root, model="later")
    answer = client.post("/generate", json={"length": 5})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    assert "the default model is later (CHARLOOM_MODEL), which the store does not have" in answer.text
    assert answered_by(client, model="gru") == "gru@60"
    train_run(trained.create("later", classic_like(), small_text(), "small.txt"), lambda: False)
    wait_until(lambda: client.get("/readyz").json().get("model") == "later@60", "the run is served")
    assert answered_by(client) == "later@60"


def test_deleted_configured_run_is_not_replaced_by_another(serving, trained):
    client = serving(trained.root, model="classic")
    assert answered_by(client) == "classic@60"
    shutil.rmtree(trained.get("classic").path)
    wait_until(lambda: client.get("/readyz").status_code == 503, "the deletion is noticed")
    assert "the default model is classic" in client.post("/generate", json={}).text


def test_another_run_is_described_once_the_default_is_deleted(serving, trained):
    client = serving(trained.root, poll_seconds=0.5)
    assert client.get("/loss-curve.json").json()["run"] == "gru"
    shutil.rmtree(trained.get("gru").path)
    assert client.get("/loss-curve.json").json()["run"] == "classic"


def test_invalid_configured_model_is_refused_at_startup(trained_root):
    from app.main import create_app

    with pytest.raises(ConfigError, match=r"model \(CHARLOOM_MODEL\) is not usable: .*'gru@newest'"):
        create_app(Settings(store=trained_root, model="gru@newest"))


def test_errors_name_the_model_in_use(client):
    unknown = client.post("/generate", json={"prompt": "€"}).json()["error"]["message"]
    assert "characters that the model gru@60 has never seen: '€' at position 0" in unknown
    named = client.post("/v1/completions", json={"prompt": "€", "model": "classic"}).json()["error"][
        "message"
    ]
    assert "the model classic@60 has never seen" in named
    missing = client.post("/generate", json={"model": "grue"}).json()["error"]["message"]
    assert missing.endswith("without a model gru@60 answers")
    bias = client.post("/v1/completions", json={"prompt": "a", "logit_bias": {"999": 1}}).json()["error"][
        "message"
    ]
    assert "of gru@60" in bias


@pytest.mark.parametrize("model", ["tgi", "dummy", "", "http://127.0.0.1:8000", "https://models.example/v1/"])
@pytest.mark.parametrize("stream", [False, True])
def test_placeholder_model_names_select_the_default(client, model, stream):
    expected = client.post("/v1/chat/completions", json=CHAT).json()["choices"][0]["message"]["content"]
    answer = client.post("/v1/chat/completions", json=CHAT | {"model": model, "stream": stream})
    assert answer.status_code == 200
    if stream:
        chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        assert {chunk["model"] for chunk in chunks} == {"gru@60"}
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == expected
    else:
        assert (answer.json()["model"], answer.json()["choices"][0]["message"]["content"]) == (
            "gru@60",
            expected,
        )
    completion = {"prompt": "the ", "model": model, "max_tokens": 20, "seed": 8, "stream": stream}
    assert client.post("/v1/completions", json=completion).status_code == 200


@pytest.mark.parametrize("model", ["tgi", "dummy", "", "http://127.0.0.1:8000", "mistralai/Mistral-7B"])
def test_tgi_answers_foreign_model_names_with_the_default(client, model):
    body = {"inputs": "the ", "parameters": {"max_new_tokens": 20, "seed": 8}}
    expected = client.post("/generate", json=body).json()
    assert client.post("/generate", json=body | {"model": model}).json() == expected
    assert client.post("/", json=body | {"model": model}).json() == [expected]
    assert client.post("/generate_stream", json=body | {"model": model}).status_code == 200


def test_run_named_like_a_placeholder_takes_precedence(serving, trained):
    train_run(trained.create("tgi", classic_like(), small_text(), "small.txt"), lambda: False)
    client = serving(trained.root, model="gru")
    assert client.post("/v1/chat/completions", json=CHAT | {"model": "tgi"}).json()["model"] == "tgi@60"
    assert client.post("/v1/chat/completions", json=CHAT | {"model": "dummy"}).json()["model"] == "gru@60"


def test_unknown_model_names_are_refused(client):
    for model in ("gpt-4o", "mistralai/Mistral-7B", "grue"):
        answer = client.post("/v1/chat/completions", json=CHAT | {"model": model})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert client.post("/generate", json={"model": "tgi"}).status_code == 404
    assert client.post("/generate", json={"inputs": "a", "model": "grue"}).status_code == 404
