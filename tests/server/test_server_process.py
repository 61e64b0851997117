"""The real server process: behaviour that only a separate process can show."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from app.store.run_store import RunStore
from tests.support.runs import wait_until
from tests.support.servers import server_process
from tests.support.stores import announce


@pytest.mark.slow
def test_restarted_server_writes_the_same_text(trained: RunStore):
    request = {"prompt": "the ", "length": 300, "seed": 11, "temperature": 0.8, "model": "gru@60"}
    with server_process(trained.root) as client:
        assert client.get("/readyz").json()["model"] == "gru@60"
        before = client.post("/generate", json=request).json()
    with server_process(trained.root) as client:
        assert client.post("/generate", json=request).json() == before
        announce(trained.get("classic"), 70, b"")
        wait_until(lambda: client.get("/readyz").json()["model"] == "classic@70", "the checkpoint is noticed")
        assert client.get("/loss-curve.png").content.startswith(b"\x89PNG")


@pytest.mark.slow
def test_short_requests_are_answered_during_a_long_text(trained: RunStore):
    limits = {"max_length": 3_000_000, "deadline_seconds": 3600, "grace_seconds": 1}
    # in this order, so that the server stops while the long text is in flight
    with ThreadPoolExecutor(1) as pool, server_process(trained.root, **limits) as client:
        long = pool.submit(client.post, "/generate", json={"length": 3_000_000})
        for _ in range(10):
            assert client.get("/healthz").status_code == 200
            assert client.post("/generate", json={"length": 5}).status_code == 200
        assert not long.done(), long.result().text
    assert (long.result().status_code, long.result().json()["error"]["code"]) == (503, "shutting_down")


@pytest.mark.slow
def test_stopping_server_ends_its_streams_with_an_error_event(trained: RunStore):
    limits = {"max_length": 3_000_000, "grace_seconds": 0.3}
    with ExitStack() as stack:
        client = stack.enter_context(server_process(trained.root, **limits))
        body = {"length": 3_000_000, "stream": True}
        answer = stack.enter_context(client.stream("POST", "/generate", json=body))
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        client.process.terminate()
        rest = list(lines)
    assert "event: error" in rest
    assert '"code":"shutting_down"' in rest[rest.index("event: error") + 1]


@pytest.mark.slow
def test_settings_are_read_from_the_environment(trained: RunStore):
    with server_process(trained.root, max_length=7, log_format="json") as client:
        error = client.post("/generate", json={"length": 8}).json()["error"]
        assert error["message"] == "length must be <= 7. Given: 8"
