"""The cost of an answer depends on what it shows, not on the length of a run or the number of clients."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from app.api.native import activations, run_info
from app.api.native.run_events import MOST_POINTS, Cursor, Watch
from app.api.openai import jobs as tuning
from app.api.openai.job_schemas import JobCheckpoint, JobEvent
from app.store import history
from app.store.recent import Recent
from app.store.run import Run
from app.store.run_store import RunStore
from tests.support.overlap import Overlap

JOB = "/v1/fine_tuning/jobs/ftjob-gru"


@pytest.fixture
def long(trained: RunStore) -> RunStore:
    """The run `gru` with 20,000 points, every fifth with a held-out loss."""
    run = trained.get("gru")
    line = run.history()[-1]
    points = (
        line | {"step": step, "seconds": step / 10, "validation_loss": None if step % 5 else step / 1000}
        for step in range(20_000)
    )
    run.history_path.write_bytes(b"".join(map(history.encode, points)))
    return trained


def counted(monkeypatch: pytest.MonkeyPatch, kind: type) -> list[object]:
    made: list[object] = []

    class Counted(kind):
        def __init__(self, **values: object) -> None:
            super().__init__(**values)
            made.append(self)

    monkeypatch.setattr(tuning, kind.__name__, Counted)
    return made


def test_only_the_requested_event_of_a_long_run_is_built(long, serving, monkeypatch):
    client = serving(long.root)
    made = counted(monkeypatch, JobEvent)
    page = client.get(f"{JOB}/events", params={"limit": 1}).json()
    assert (len(page["data"]), page["has_more"], len(made)) == (1, True, 1)
    deep = client.get(f"{JOB}/events", params={"limit": 2, "after": "ftevent-gru-7000-point"}).json()
    assert [event["id"] for event in deep["data"]] == ["ftevent-gru-6999-point", "ftevent-gru-6998-point"]
    assert len(made) == 3


def test_events_after_the_requested_page_are_not_generated(long, serving, monkeypatch):
    generated: list[object] = []
    moments = tuning.moments
    monkeypatch.setattr(
        tuning, "moments", lambda *given: (generated.append(one) or one for one in moments(*given))
    )
    assert serving(long.root).get(f"{JOB}/events", params={"limit": 3}).json()["has_more"]
    assert len(generated) == 4


def test_losses_of_a_checkpoint_are_searched_in_few_points(long, monkeypatch):
    searched: list[object] = []
    metrics = tuning.metrics
    monkeypatch.setattr(tuning, "metrics", lambda point: searched.append(point) or metrics(point))
    run = long.get("gru")
    found = tuning.checkpoint(run, run.history(), 19_000, run.checkpoint_path(60))
    assert found.metrics["valid_step"] == 19_000
    assert len(searched) <= 1000


def test_missed_points_and_samples_are_sent_in_limited_number(long, serving):
    run = long.get("gru")
    line = run.samples()[0]
    run.samples_path.write_bytes(b"".join(history.encode(line | {"step": step}) for step in range(1000)))
    events = b"".join(Watch(serving(long.root).app.state.services, run, Cursor()).look())
    assert 400 < events.count(b"event: progress\n") <= MOST_POINTS + 1
    assert events.count(b"event: sample\n") == MOST_POINTS


def test_only_the_requested_checkpoint_of_a_long_run_is_built(long, serving, monkeypatch):
    client = serving(long.root)
    made = counted(monkeypatch, JobCheckpoint)
    page = client.get(f"{JOB}/checkpoints", params={"limit": 1}).json()
    assert (len(page["data"]), page["has_more"], len(made)) == (1, True, 1)
    newest = page["data"][0]
    assert newest["step_number"] == 60
    assert newest["metrics"]["valid_loss"] == 0.06
    second = client.get(f"{JOB}/checkpoints", params={"limit": 1, "after": newest["id"]}).json()["data"][0]
    assert second["step_number"] < 60


@pytest.mark.slow
def test_held_out_loss_of_a_checkpoint_is_listed_with_its_step(long, serving):
    long.get("gru").checkpoint_path(60).rename(long.get("gru").checkpoint_path(63))
    client = serving(long.root)
    [newest] = client.get(f"{JOB}/checkpoints", params={"limit": 1}).json()["data"]
    assert newest["metrics"]["step"] == 63
    assert (newest["metrics"]["valid_step"], newest["metrics"]["valid_loss"]) == (60, 0.06)


@pytest.mark.slow
def test_event_pages_list_each_event_once_newest_first(long, serving):
    client = serving(long.root)
    seen: list[str] = []
    after = {"after": "ftevent-gru-130-point"}
    while True:
        page = client.get(f"{JOB}/events", params={"limit": 20, **after}).json()
        seen += [event["id"] for event in page["data"]]
        after = {"after": seen[-1]}
        if not page["has_more"]:
            break
    assert len(seen) == len(set(seen))
    steps = [int(name.split("-")[2]) for name in seen if "made" not in name]
    assert steps == sorted(steps, reverse=True)
    assert seen[-1] == "ftevent-gru--1-made"
    assert "ftevent-gru-60-saved" in seen
    assert seen.index("ftevent-gru-60-point") < seen.index("ftevent-gru-60-saved")


def test_many_watchers_share_one_read_of_the_run(trained, serving, monkeypatch):
    client = serving(trained.root)
    services = client.app.state.services
    services.looks.seconds = 30.0
    described: list[str] = []
    describe = run_info.describe
    monkeypatch.setattr(
        "app.api.native.run_events.describe",
        lambda services, run: (described.append(run.name), describe(services, run))[1],
    )
    watches = [Watch(services, trained.get("gru"), None) for _ in range(30)]
    for _ in range(3):
        for watch in watches:
            watch.look()
    assert described == ["gru"]


def test_watcher_of_a_long_run_reads_only_new_points(long, serving):
    class Counting(dict):
        def __getitem__(self, name: str) -> object:
            looked.append(name)
            return super().__getitem__(name)

    looked: list[str] = []
    services = serving(long.root).app.state.services
    watch = Watch(services, long.get("gru"), Cursor(19_998, 0, 60))
    services.curves.get(long.get("gru")).points[:] = [
        Counting(point) for point in services.curves.get(long.get("gru")).points
    ]
    watch.look()
    assert 0 < len(looked) < 200


def test_results_are_cached_by_name_for_a_limited_time():
    made: list[int] = []

    def make() -> int:
        time.sleep(0.01)
        made.append(len(made))
        return len(made)

    recent = Recent(30.0, 2)
    threads = [threading.Thread(target=recent.get, args=("a", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert recent.get("b", make) == 2
    assert recent.get("c", make) == 3
    assert recent.get("a", make) == 4  # dropped: two are kept
    recent.seconds = -1.0
    assert recent.get("a", make) == 5


def test_activations_of_a_long_text_read_only_its_end(trained, serving, monkeypatch):
    run = trained.get("gru")
    expected = run.text()[-1000:]
    client = serving(trained.root)

    def refuse(run: Run) -> str:
        raise AssertionError("the whole text was read")

    monkeypatch.setattr(Run, "text", refuse)
    answer = client.post("/activations", json={"model": "gru"})
    assert answer.json()["text"] == expected


@pytest.mark.parametrize("text", ["aé" * 10, "😀é" * 40, "", "x"])
def test_end_of_a_text_is_whole_characters(trained: RunStore, text):
    run = trained.get("gru")
    (run.path / "corpus.txt").write_text(text, encoding="utf-8")
    for count in (1, 3, 7, 100):
        assert run.text_end(count) == text[-count:]


def test_activations_are_limited_by_characters_times_units(client: httpx.Client, monkeypatch):
    monkeypatch.setattr("app.api.native.activations.LARGEST", 24 * 50)
    answer = client.post("/activations", json={"model": "gru", "text": "a" * 51})
    assert answer.status_code == 422
    assert "at most 50 characters for the 24 units" in answer.json()["error"]["message"]
    assert client.post("/activations", json={"model": "gru", "text": "a" * 50}).status_code == 200
    assert len(client.post("/activations", json={"model": "gru"}).json()["text"]) == 50


def test_activations_are_computed_one_at_a_time(client: httpx.Client, monkeypatch):
    computing = Overlap(activations.activations, seconds=0.1)
    monkeypatch.setattr(activations, "activations", computing)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.post("/activations", json={"model": "gru"}), range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert computing.most == 1


def test_activations_beyond_their_places_are_refused(serving, trained_root):
    client = serving(trained_root)
    readers = client.app.state.services.readers
    readers.taken = readers.limit
    refused = client.post("/activations", json={"model": "gru"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
    readers.taken = readers.limit - 1
    assert client.post("/activations", json={"model": "gru"}).status_code == 200
    assert readers.taken == readers.limit - 1
