"""Changes and deletions of runs that have to wait, or whose run is removed in the meantime."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import httpx
import pytest
from filelock import FileLock

from app.store.records import Status
from app.store.run import Run
from app.store.run_store import RunStore
from tests.support.runs import classic_like, small_text, worker_process

WAITING = 45  # more than the threads for blocking calls
SOON = 5.0  # seconds; a blocked request would take as long as the wait


def timed(api: httpx.Client, path: str) -> float:
    began = time.monotonic()
    assert api.get(path).status_code == 200
    return time.monotonic() - began


def while_waiting(
    api: httpx.Client, ask: Callable[[int], httpx.Response], release: Callable[[], None]
) -> list[httpx.Response]:
    """Send requests that wait until `release`, check that others are answered, and return the answers."""
    with ThreadPoolExecutor(WAITING) as pool:
        waiting = [pool.submit(ask, number) for number in range(WAITING)]
        try:
            time.sleep(1.0)
            assert timed(api, "/runs") < SOON
            assert timed(api, "/samples?model=gru") < SOON
        finally:
            release()
        return [one.result(60) for one in waiting]


@pytest.mark.slow
def test_waiting_changes_do_not_block_other_requests(serving, trained: RunStore):
    api = serving(trained.root)
    with httpx.Client(base_url=api.base_url, timeout=60, limits=httpx.Limits(max_connections=100)) as other:
        changing = trained.changing()
        changing.__enter__()

        def ask(number: int) -> httpx.Response:
            return other.patch("/runs/gru", json={"priority": number})

        answers = while_waiting(api, ask, lambda: changing.__exit__(None, None, None))
    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.slow
def test_waiting_deletions_do_not_block_other_requests(serving, trained: RunStore):
    api = serving(trained.root)
    with httpx.Client(base_url=api.base_url, timeout=60, limits=httpx.Limits(max_connections=100)) as other:
        holding = trained.holding("classic")
        holding.__enter__()
        answers = while_waiting(
            api, lambda number: other.delete("/runs/classic"), lambda: holding.__exit__(None, None, None)
        )
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200] + [404] * (WAITING - 1)
    assert all(
        "classic" in answer.json()["error"]["message"] for answer in answers if answer.status_code == 404
    )


def test_deletion_of_a_run_in_training_is_refused(serving, trained: RunStore, monkeypatch):
    monkeypatch.setattr("app.api.native.runs.STOP_SECONDS", 0.1)
    api = serving(trained.root)
    with trained.holding("classic"):
        answer = api.delete("/runs/classic")
    assert answer.status_code == 409
    assert "still training" in answer.json()["error"]["message"]
    assert api.delete("/runs/classic").status_code == 200


@pytest.mark.slow
def test_change_that_waits_too_long_is_refused_without_a_path(serving, trained: RunStore, monkeypatch):
    monkeypatch.setattr("app.store.run_store.CHANGE_SECONDS", 0.1)
    api = serving(trained.root)
    with trained.changing():
        answer = api.patch("/runs/gru", json={"priority": 1})
    assert answer.status_code == 504
    assert answer.json()["error"]["message"] == "the store was busy with other changes for 0.1 s: try again"


def test_disk_write_error_is_reported_without_a_path(serving, trained: RunStore, monkeypatch):
    def fail(run: Run, control: object) -> NoReturn:
        raise OSError(5, "Input/output error", str(run.path / "control.json"))

    monkeypatch.setattr(Run, "write_control", fail)
    answer = serving(trained.root).patch("/runs/gru", json={"priority": 1})
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "Input/output error"


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_run_removed_before_it_is_changed_is_404(serving, trained: RunStore, monkeypatch, method: str):
    standing = Run.standing

    def vanish(run: Run) -> Status:
        found = standing.fget(run)
        shutil.rmtree(run.path, ignore_errors=True)
        return found

    api = serving(trained.root)
    monkeypatch.setattr(Run, "standing", property(vanish))
    body = {"json": {"priority": 3}} if method == "PATCH" else {}
    answer = api.request(method, "/runs/classic", **body)
    assert answer.status_code == 404, answer.text
    assert str(trained.root) not in answer.text


@pytest.mark.parametrize("path", ["/runs/classic", "/runs/classic/export", "/v1/models/classic@60"])
def test_run_removed_before_it_is_shown_is_404(serving, trained: RunStore, monkeypatch, path: str):
    checkpoints = Run.checkpoints

    def vanish(run: Run) -> dict[int, Path]:
        if run.name == "classic":
            shutil.rmtree(run.path, ignore_errors=True)
        return checkpoints(run)

    api = serving(trained.root)
    monkeypatch.setattr(Run, "checkpoints", vanish)
    answer = api.get(path)
    assert answer.status_code == 404, answer.text
    assert [run["name"] for run in api.get("/runs").json()["runs"]] == ["gru"]


def test_fork_of_a_run_without_its_text_is_refused(serving, trained: RunStore):
    (trained.root / "classic" / "corpus.txt").unlink()
    answer = serving(trained.root).post("/runs/classic/fork")
    assert answer.status_code == 422, answer.text
    assert "run 'classic' has no text in this store" in answer.json()["error"]["message"]


def test_delete_beside_a_worker_of_an_earlier_version_is_a_conflict(serving, trained: RunStore):
    api = serving(trained.root)
    (trained.root / ".store.json").unlink()
    (trained.root / ".worker.lock").rmdir()
    with FileLock(trained.root / ".worker.lock"):
        answer = api.delete("/runs/classic")
    assert answer.status_code == 409
    assert "a worker of an earlier version holds the store: stop it first" in answer.text
    assert api.delete("/runs/classic").status_code == 200


@pytest.mark.slow
def test_changes_while_a_worker_begins_runs_are_not_lost(serving, tmp_path: Path):
    """The worker clears its folder when it begins a run; a request may be being written there."""
    store = RunStore(tmp_path / "store")
    store.make_root()
    api = serving(store.root)
    with worker_process(store):
        for number in range(8):
            name = f"run-{number}"
            store.create(name, classic_like(steps=40), small_text(), "small.txt")
            priority, state = 0, "queued"
            while state == "queued":
                priority += 1
                answer = api.patch(f"/runs/{name}", json={"priority": priority})
                assert answer.status_code == 200, answer.text
                state = answer.json()["state"]
                assert store.get(name).control.priority == priority
            assert api.delete(f"/runs/{name}", params={"force": True}).status_code == 200
        assert store.list() == []
