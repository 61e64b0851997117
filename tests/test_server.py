"""The real server process: what only a process can show."""

from concurrent.futures import ThreadPoolExecutor

from conftest import server_process
from small_runs import wait_until
from test_store import announce

from app.runs import RunStore


def test_texts_are_the_same_after_a_restart_and_new_checkpoints_are_noticed(trained: RunStore):
    request = {"prompt": "the ", "length": 300, "seed": 11, "temperature": 0.8, "model": "gru@60"}
    with server_process(trained.root) as client:
        assert client.get("/readyz").json()["model"] == "gru@60"
        before = client.post("/generate", json=request).json()
    with server_process(trained.root) as client:
        assert client.post("/generate", json=request).json() == before
        announce(trained.get("classic"), 70, b"")
        wait_until(lambda: client.get("/readyz").json()["model"] == "classic@70", "the checkpoint is noticed")
        assert client.get("/loss-curve.png").content.startswith(b"\x89PNG")


def test_health_and_short_texts_are_answered_while_a_long_one_is_written(trained: RunStore):
    limits = {"max_length": 3_000_000, "deadline_seconds": 60, "grace_seconds": 1}
    # in this order: the server is stopped with the long text in flight
    with ThreadPoolExecutor(1) as pool, server_process(trained.root, **limits) as client:
        long = pool.submit(client.post, "/generate", json={"length": 3_000_000})
        for _ in range(10):
            assert client.get("/healthz").status_code == 200
            assert client.post("/generate", json={"length": 5}).status_code == 200
        assert not long.done()
    assert (long.result().status_code, long.result().json()["error"]["code"]) == (503, "shutting_down")


def test_settings_come_from_the_environment(trained: RunStore):
    with server_process(trained.root, max_length=7, log_format="json") as client:
        error = client.post("/generate", json={"length": 8}).json()["error"]
        assert error["message"] == "length must be <= 7. Given: 8"
