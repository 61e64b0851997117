"""/runs, /samples, health, the format of errors, and the headers of every answer."""

import time

import httpx
import pytest

from app.store.records import Status
from app.store.run_store import RunStore
from tests.support.runs import classic_like, small_text, wait_until
from tests.support.stores import announce


def test_run_list_has_every_run_with_its_state(client: httpx.Client):
    classic, gru = client.get("/runs").json()["runs"]
    assert (classic["name"], gru["name"]) == ("classic", "gru")
    assert (classic["serving"], gru["serving"]) == (None, "gru@60")
    assert (gru["cell"], gru["hidden"], gru["layers"], gru["preset"]) == ("gru", 12, 2, "gru")
    assert (gru["state"], gru["step"], gru["steps"], gru["fraction"]) == ("finished", 60, 60, 1.0)
    assert gru["newest"]["step"] == 60
    assert gru["best"]["loss"] == pytest.approx(gru["validation_loss"], rel=0.5)
    assert set(gru["checkpoints"]) >= {0, 20, 40, 60}
    assert (gru["samples"], gru["characters"], gru["corpus"]) == (5, 4000, "small.txt")
    assert (classic["stale"], classic["reason"]) == (False, None)


def test_every_listed_checkpoint_can_be_used(client: httpx.Client):
    for run in client.get("/runs").json()["runs"]:
        for step in run["checkpoints"]:
            answer = client.post("/generate", json={"model": f"{run['name']}@{step}", "length": 3})
            assert answer.json()["step"] == step


def test_run_whose_worker_is_silent_or_gone_is_stale(serving, trained: RunStore, monkeypatch):
    trained.create("new", classic_like(), small_text(), "small.txt")
    client = serving(trained.root)

    def stale() -> bool:
        return bool(client.get("/runs").json()["runs"][-1]["stale"])

    with trained.holding("new") as held:
        held.write_status(Status(state="training", heartbeat=time.time() - 7200))
        assert not stale()  # the clock of the worker may be two hours slow
        monkeypatch.setattr("app.api.native.run_info.SILENT_SECONDS", 0.3)
        time.sleep(0.4)
        assert stale()
        held.write_status(Status(state="training", heartbeat=time.time() - 7100))
        assert not stale()
    monkeypatch.undo()
    assert stale()


def test_damaged_run_does_not_hide_the_others(serving, trained: RunStore):
    run = trained.get("classic")
    (run.path / "latest.json").write_text("{")
    (run.path / "status.json").write_text("{")
    bad = trained.create("bad", classic_like(), small_text(), "small.txt")
    (bad.path / "run.json").write_text("{")
    classic, gru = serving(trained.root).get("/runs").json()["runs"]
    assert (classic["newest"], classic["state"]) == (None, "queued")
    assert gru["newest"]["step"] == 60


def test_samples_have_the_losses_of_their_step(client: httpx.Client, trained_root):
    body = client.get("/samples", params={"model": "gru"}).json()
    assert body["run"] == "gru"
    assert [(sample["step"], sample["kind"]) for sample in body["samples"]] == [
        (0, "sample"),
        (20, "sample"),
        (40, "sample"),
        (60, "sample"),
        (60, "best"),
    ]
    history = {point["step"]: point for point in RunStore(trained_root).get("gru").history()}
    for sample in body["samples"]:
        assert sample["smooth_loss"] == history[sample["step"]]["smooth_loss"]
        assert sample["validation_loss"] == history[sample["step"]]["validation_loss"]
        assert sample["text"]
    assert client.get("/samples").json() == body
    assert client.get("/samples?model=gru@20").json() == body
    assert client.get("/samples?model=classic").json()["run"] == "classic"


@pytest.mark.parametrize("path", ["/samples", "/loss-curve", "/loss-curve.svg", "/gradcheck"])
def test_unknown_run_is_not_found(client: httpx.Client, path):
    response = client.get(path, params={"model": "nothing"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert "classic, gru" in response.json()["error"]["message"]


def test_readiness_follows_the_store(serving, trained: RunStore, tmp_path):
    store = RunStore(tmp_path / "fresh")
    client = serving(store.root)
    assert client.get("/healthz").json() == {"status": "ok"}
    for path in ("/readyz", "/samples", "/loss-curve"):
        response = client.get(path)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
    trained.root.rename(store.root)
    wait_until(lambda: client.get("/readyz").status_code == 200, "a checkpoint is loaded")
    assert client.get("/readyz").json() == {"status": "ready", "model": "gru@60", "step": 60}


def test_bad_checkpoint_leaves_the_last_good_one_in_service(serving, trained: RunStore):
    client = serving(trained.root)
    run = trained.get("gru")
    announce(run, 70, b"torn")
    models = client.app.state.services.models
    wait_until(lambda: models.refusals == 1, "the checkpoint is refused")
    assert client.get("/readyz").json()["model"] == "gru@60"
    announce(run, 80, b"")
    wait_until(lambda: client.get("/readyz").json()["model"] == "gru@80", "the next one is served")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/assets/nothing.js", 404, "not_found"),
        ("DELETE", "/generate", 405, "method_not_allowed"),
        ("POST", "/samples", 405, "method_not_allowed"),
        ("GET", "/loss-curve?points=5", 422, "invalid_request"),
        ("GET", "/loss-curve.svg?theme=blue", 422, "invalid_request"),
        ("GET", "/gradcheck?method=guess", 422, "invalid_request"),
    ],
)
def test_every_error_has_the_same_format(client: httpx.Client, method, path, status, code):
    response = client.request(method, path)
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert isinstance(error["details"], list)
    assert ("allow" in response.headers) == (status == 405)


def test_internal_error_reveals_only_the_request_id(serving, trained_root, monkeypatch, caplog):
    client = serving(trained_root)

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr("app.api.native.runs.list_runs", broken)
    response = client.get("/runs", headers={"x-request-id": "abc"})
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == "abc"
    assert "content-security-policy" in response.headers
    assert "a secret" in caplog.text


def test_unreadable_store_is_reported_as_unavailable(serving, trained_root, monkeypatch):
    client = serving(trained_root)

    def broken(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied", "checkpoints")

    monkeypatch.setattr("app.api.native.runs.list_runs", broken)
    response = client.get("/runs")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "store_unavailable")


@pytest.mark.parametrize("path", ["/healthz", "/", "/nothing", "/docs"])
def test_every_answer_has_security_headers_and_an_id(client: httpx.Client, path):
    first, second = client.get(path), client.get(path)
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert first.headers["x-content-type-options"] == "nosniff"
    policy = first.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1.2_3", True), ("a b", False), ("x" * 129, False), ("é".encode(), False)]
)
def test_valid_request_id_is_kept(client: httpx.Client, given, kept):
    echoed = client.get("/healthz", headers={"x-request-id": given}).headers["x-request-id"]
    assert (echoed == given) is kept


def test_openapi_document_describes_every_route(client: httpx.Client):
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"]
            assert operation["description"]
            for status, response in operation["responses"].items():
                if status == "default" or int(status) >= 400:
                    [content] = response["content"].values()
                    schemas = content["schema"].get("anyOf", [content["schema"]])
                    shapes = {schema["$ref"].rpartition("/")[2] for schema in schemas}
                    assert shapes <= {"ErrorResponse", "OpenAIError", "TgiError"}, (path, status)
    assert "HTTPValidationError" not in document["components"]["schemas"]
