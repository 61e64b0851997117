"""Runs over HTTP: a text becomes a served model, and its training is controlled."""

import functools
import io
import json
import signal
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.native.run_events import Cursor, Watch
from app.store.capacity import kernel
from app.store.run_store import RunStore
from app.store.space import size_of
from app.training.trainer import Cadence
from app.training.worker import Worker
from model.checkpoint import load
from tests.support.runs import LONGEST_WAIT, small_text, stop, wait_until, worker_process

TEXT = small_text(6000)
SMALL = {
    "preset": "gru",
    "hidden": 8,
    "embedding": 0,
    "streams": 4,
    "shards": 1,
    "steps": 40,
    "sample_every": 20,
}
PLAIN = {"content-type": "text/plain"}


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "checkpoints")


@pytest.fixture
def api(store: RunStore, serving: Callable[..., httpx.Client]) -> httpx.Client:
    store.root.mkdir()
    return serving(store.root, watch_seconds=20)


def upload(api: httpx.Client, text: str | bytes = TEXT, **options: Any) -> httpx.Response:
    content = text if isinstance(text, bytes) else text.encode()
    return api.post("/runs", params=SMALL | options, content=content, headers=PLAIN)


def train_all(store: RunStore) -> None:
    worker = Worker(store, lambda: False)
    while (run := worker.next_run()) is not None:
        worker.train(run)


def zipped(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def left_behind(store: RunStore) -> list[str]:
    return [path.name for path in store.root.iterdir() if path.name.startswith((".tmp", "tmp"))]


@pytest.mark.slow
def test_uploaded_text_becomes_a_served_model(api, store):
    answer = upload(api, name="mine")
    assert answer.status_code == 202
    body = answer.json()
    assert (body["name"], body["state"], body["characters"]) == ("mine", "queued", 6000)
    assert answer.headers["location"] == body["url"] == "/runs/mine"
    waiting = api.get("/runs/mine").json()
    assert waiting["state"] == "queued"
    assert [finding["code"] for finding in waiting["findings"]] == ["short"]
    assert waiting["findings"] == body["findings"]
    train_all(store)
    run = api.get("/runs/mine").json()
    assert (run["state"], run["step"], run["fraction"]) == ("finished", 40, 1.0)
    texts = [
        api.post("/generate", json={"prompt": "the", "length": 30, "seed": 1, "model": name}).json()["text"]
        for name in ("mine@0", "mine@40")
    ]
    assert texts[0] != texts[1]


@pytest.mark.slow
def test_two_concurrent_uploads_are_both_trained(api, store):
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(upload(api))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = sorted(answer.json()["name"] for answer in answers)
    assert [answer.status_code for answer in answers] == [202, 202]
    assert len(set(names)) == 2
    train_all(store)
    assert [api.get(f"/runs/{name}").json()["state"] for name in names] == ["finished"] * 2


@pytest.mark.parametrize("kind", ["files", "zip", "json"])
def test_files_zip_and_json_give_the_same_text(api, store, kind):
    if kind == "files":
        files = [("file", ("a.txt", b"one " * 500)), ("file", ("b.txt", b"two " * 500))]
        answer = api.post("/runs", files=files, data=SMALL | {"name": "mine"})
    elif kind == "zip":
        data = zipped({"a.txt": b"one " * 500, "b.txt": b"two " * 500})
        answer = api.post("/runs", files={"file": ("texts.zip", data)}, data=SMALL | {"name": "mine"})
    else:
        text = "one " * 500 + "\n" + "two " * 500
        answer = api.post("/runs", json=SMALL | {"name": "mine", "text": text})
    assert answer.status_code == 202, answer.text
    assert store.get("mine").text() == "one " * 500 + "\n" + "two " * 500


def test_latin_1_file_is_accepted_only_with_its_encoding_named(api, store):
    data = ("caf\xe9 au lait, " * 400).encode("latin-1")
    refused = upload(api, data, name="mine")
    assert refused.status_code == 422
    error = refused.json()["error"]
    assert error["code"] == "unusable_text"
    assert (error["details"][0]["code"], error["details"][0]["position"]) == ("not_utf8", 3)
    assert upload(api, data, name="mine", encoding="latin-1").status_code == 202
    assert store.get("mine").text().startswith("caf\xe9 au lait")


@pytest.mark.slow
def test_text_of_emoji_is_accepted(api, store):
    text = "".join(f"I am {face} and you are {face}. " for face in "😀😃😄🙂🙃😉" * 60)
    assert upload(api, text, name="mine").status_code == 202
    train_all(store)
    answer = api.post("/generate", json={"prompt": "😀", "length": 20, "seed": 1, "model": "mine"})
    assert answer.status_code == 200


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "", "X" * 80])
def test_run_name_with_a_path_is_refused(api, store, name):
    answer = upload(api, name=name)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (422, "invalid_request", "name")
    assert "name must be 1 to 64 characters" in error["message"]
    assert store.list() == []
    assert left_behind(store) == []


@pytest.mark.parametrize(
    ("text", "options", "part"),
    [
        (b"", {}, "missing"),
        (b"short", {}, "at least"),
        (TEXT.encode(), {"hidden": 0}, "hidden must be between 1 and 4096"),
        (TEXT.encode(), {"hiden": 3}, "hiden"),
        (TEXT.encode(), {"preset": "gpt"}, "preset must be one of"),
        (TEXT.encode(), {"encoding": "base64"}, "encoding"),
        (TEXT.encode(), {"priority": 5000}, "priority"),
    ],
)
def test_unusable_upload_is_refused_with_the_reason(api, store, text, options, part):
    answer = upload(api, text, **options)
    assert answer.status_code == 422
    assert part in answer.json()["error"]["message"]
    assert store.list() == []
    assert left_behind(store) == []


def test_oversized_text_or_zip_is_refused(store, serving):
    store.root.mkdir()
    api = serving(store.root, max_corpus_bytes=50_000)
    assert upload(api, b"a b " * 20_000).status_code == 413
    bomb = zipped({"a.txt": b"a b " * 1_000_000})
    assert len(bomb) < 50_000
    answer = api.post("/runs", files={"file": ("texts.zip", bomb)}, data=SMALL)
    assert answer.status_code == 413
    assert store.list() == []
    assert left_behind(store) == []


def test_existing_run_name_is_a_conflict(api):
    assert upload(api, name="mine").status_code == 202
    answer = upload(api, name="mine")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "run_exists")


@pytest.mark.slow
def test_worker_follows_pause_resume_stop_and_priority(api, store):
    upload(api, name="long", steps=1_000_000, sample_every=0, checkpoint_every=1000)

    def state() -> str:
        return str(api.get("/runs/long").json()["state"])

    def ask(action: str) -> None:
        assert api.patch("/runs/long", json={"action": action}).status_code == 200

    with worker_process(store) as worker:
        wait_until(lambda: state() == "training", "the run is trained")
        ask("pause")
        wait_until(lambda: state() == "paused", "the run is paused")
        upload(api, name="other")
        wait_until(lambda: api.get("/runs/other").json()["state"] == "finished", "the other run is trained")
        at = api.get("/runs/long").json()["step"]
        ask("resume")
        wait_until(lambda: api.get("/runs/long").json()["step"] > at, "the run continues")
        ask("stop")
        wait_until(lambda: state() == "stopped", "the run is stopped")
        assert api.patch("/runs/other", json={"action": "pause"}).status_code == 409
        assert api.patch("/runs/other", json={"priority": 7}).json()["priority"] == 7
        assert stop(worker)[0] == 0


@pytest.mark.slow
def test_two_workers_train_two_runs_and_a_third_takes_over(api, store):
    for name in ("first", "second"):
        upload(api, name=name, steps=1_000_000, sample_every=0, checkpoint_every=1000)

    def states() -> list[str]:
        return [run["state"] for run in api.get("/runs").json()["runs"]]

    with worker_process(store) as one, worker_process(store) as two:
        wait_until(lambda: states() == ["training", "training"], "both runs are trained")
        with worker_process(store) as three:
            assert stop(one)[0] == 0
            wait_until(lambda: states() == ["training", "training"], "the third worker takes over")
            assert stop(three)[0] == 0
        assert stop(two)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["pause", "stop"])
@pytest.mark.parametrize("state", ["queued", "training", "asked"])
def test_run_of_a_killed_worker_can_be_controlled_and_continues(api, store, state, asked):
    upload(api, name="mine", steps=1_000_000, sample_every=0, checkpoint_every=200)
    ended = {"pause": "paused", "stop": "stopped"}[asked]

    def now() -> str:
        return str(api.get("/runs/mine").json()["state"])

    with worker_process(store) as worker:
        if state != "queued":
            wait_until(lambda: api.get("/runs/mine").json()["step"] > 0, "the run is trained")
        if state == "asked":  # and the worker is killed before it can react
            worker.send_signal(signal.SIGSTOP)
            assert api.patch("/runs/mine", json={"action": asked}).status_code == 200
        worker.kill()
        worker.wait()
    if state != "asked":
        assert api.patch("/runs/mine", json={"action": asked}).status_code == 200
    with worker_process(store) as worker:
        wait_until(lambda: now() == ended, "the next worker follows the request")
        step = api.get("/runs/mine").json()["step"]
        assert api.patch("/runs/mine", json={"action": "resume"}).status_code == 200
        wait_until(lambda: api.get("/runs/mine").json()["step"] > step, "the run continues")
        assert stop(worker)[0] == 0


@pytest.mark.slow
def test_text_of_50_megabytes_is_read_in_parts(api, store):
    text = (small_text(99_999) + "\n") * 500
    data = text.encode()
    assert len(data) > 50_000_000

    def pieces() -> Iterator[bytes]:
        for begin in range(0, len(data), 1 << 20):
            yield data[begin : begin + (1 << 20)]

    answers: list[httpx.Response] = []
    post = functools.partial(api.post, params=SMALL | {"name": "mine"}, headers=PLAIN)
    assert peak_memory(lambda: answers.append(post("/runs", content=pieces()))) < len(data) * 0.8
    assert answers[0].status_code == 202, answers[0].text
    body = answers[0].json()
    assert body["characters"] == len(text)
    assert "repeated_lines" in [finding["code"] for finding in body["findings"]]
    train_all(store)
    assert api.get("/runs/mine").json()["state"] == "finished"


def peak_memory(work: Callable[[], object]) -> int:
    """Peak memory of Python objects in this process, which is also the server, during `work`."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_concurrent_uploads_are_limited_and_the_rest_refused(store, serving):
    store.root.mkdir()
    api = serving(store.root, max_uploads=5)  # of which one client may use four
    data = ((small_text(9_999) + "\n") * 1200).encode()
    begun = threading.Barrier(13)  # 12 clients that have sent a part, and this test
    statuses: list[int] = []

    def halves() -> Iterator[bytes]:
        for begin in range(0, len(data), 1 << 14):
            if begin == 1 << 20:
                begun.wait(LONGEST_WAIT)
            yield data[begin : begin + (1 << 14)]

    def client() -> None:
        options = {"params": SMALL, "headers": PLAIN}
        with httpx.Client(base_url=api.base_url, timeout=LONGEST_WAIT) as own:
            answer = own.post("/runs", content=halves(), **options)
            statuses.append(answer.status_code)
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1
                assert "4 of 5 uploads are in progress for this client" in answer.json()["error"]["message"]

    threads = [threading.Thread(target=client) for _ in range(12)]

    def crowd() -> None:
        for thread in threads:
            thread.start()
        begun.wait(LONGEST_WAIT)
        for thread in threads:
            thread.join(LONGEST_WAIT)

    alone = peak_memory(lambda: upload(api, data))
    together = peak_memory(crowd)
    assert sorted(statuses) == [202] * 4 + [429] * 8
    assert together < alone + len(data)
    assert upload(api).status_code == 202  # the places were released
    assert left_behind(store) == []


@pytest.mark.slow
def test_store_over_its_byte_limit_removes_old_checkpoints(store, serving):
    store.root.mkdir()
    upload(serving(store.root), name="mine", steps=200, sample_every=10, checkpoint_every=10)
    checkpoint_bytes = 20_000
    limit = len(TEXT.encode()) + 12 * checkpoint_bytes
    worker = Worker(store, lambda: False, cadence=Cadence(store_bytes=limit))
    worker.train(worker.next_run())
    run = store.get("mine")
    assert run.status.state == "finished", run.status.reason
    assert size_of(store.root) <= limit + checkpoint_bytes  # curve and samples are not reserved in advance
    steps = list(run.checkpoints())
    assert 0 not in steps
    assert steps == list(range(steps[0], 201, 10))
    assert (run.path / run.latest().best.file).exists()


@pytest.mark.slow
def test_full_store_pauses_training_and_refuses_uploads(store, serving):
    store.root.mkdir()
    free = serving(store.root)
    upload(free, name="mine")
    train_all(store)
    upload(free, name="next", steps=400)
    limit = size_of(store.root) + 2000
    for path in list(store.get("mine").checkpoints().values())[:-1]:
        path.unlink()
    tight = serving(store.root, max_store_bytes=size_of(store.root) + 2000)
    refused = upload(tight, name="another")
    assert (refused.status_code, refused.json()["error"]["code"]) == (507, "store_full")
    assert "CHARLOOM_MAX_STORE_BYTES" in refused.json()["error"]["message"]
    assert left_behind(store) == []
    worker = Worker(store, lambda: False, cadence=Cadence(store_bytes=limit - 10_000), retry_seconds=0.01)
    worker.train(store.get("next"))
    status = tight.get("/runs/next").json()
    assert (status["state"], "CHARLOOM_MAX_STORE_BYTES" in status["reason"]) == ("paused", True)
    generated = tight.post("/generate", json={"length": 5, "model": "mine"})
    assert generated.status_code == 200
    train_all(store)
    assert tight.get("/runs/next").json()["state"] == "finished"


def test_minutes_without_a_preset_choose_suitable_sizes(api, store):
    shortly, longer = (
        api.post("/runs", params={"minutes": minutes}, content=TEXT.encode(), headers=PLAIN).json()["name"]
        for minutes in (0.02, 3)
    )
    configs = [store.get(name).config for name in (shortly, longer)]
    assert [config.preset for config in configs] == ["planned", "planned"]
    assert configs[0].hidden < configs[1].hidden
    assert configs[0].streams < 32  # the text is too short for more


def test_run_with_higher_priority_is_trained_first(api, store):
    upload(api, name="first")
    upload(api, name="second", priority=3)
    assert Worker(store, lambda: False).next_run().name == "second"


@pytest.mark.slow
def test_only_model_is_deleted_only_when_forced(api, store):
    upload(api, name="mine")
    train_all(store)
    assert api.delete("/runs/mine").status_code == 409
    assert api.delete("/runs/mine", params={"force": True}).json() == {"name": "mine", "deleted": True}
    assert api.get("/runs/mine").status_code == 404
    assert not (store.root / "mine").exists()
    assert left_behind(store) == []


def events_of(api: httpx.Client, name: str, last: str | None = None) -> list[tuple[str, str, dict]]:
    headers = {} if last is None else {"last-event-id": last}
    text = api.get(f"/runs/{name}/events", headers=headers).text
    found = []
    for block in filter(None, text.split("\n\n")):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return found


@pytest.mark.slow
def test_events_resumed_from_any_cursor_have_no_gap_or_repeat(api, store):
    upload(api, name="mine")
    train_all(store)
    events = events_of(api, "mine", "0")
    steps = [data["step"] for kind, _, data in events if kind == "progress"]
    assert steps == [point["step"] for point in store.get("mine").history()]
    samples = [data["text"] for kind, _, data in events if kind == "sample"]
    assert samples == [sample["text"] for sample in store.get("mine").samples()]
    assert events[-1][0] == "state"
    middle = next(place for kind, place, data in events if kind == "progress" and data["step"] == 20)
    again = events_of(api, "mine", middle)
    assert [data["step"] for kind, _, data in again if kind == "progress"] == [s for s in steps if s > 20]
    assert api.get("/runs/mine/events", headers={"last-event-id": events[-1][1]}).status_code == 204


@pytest.mark.slow
def test_run_reset_to_an_earlier_step_repeats_its_events(api, store, monkeypatch):
    monkeypatch.setattr("app.store.loss_curves.FRESH_SECONDS", -1)
    upload(api, name="mine")
    train_all(store)
    history = store.get("mine").path / "history.jsonl"
    whole = history.read_bytes()
    watch = Watch(api.app.state.services, store.get("mine"), Cursor())
    assert b"event: progress" in b"".join(watch.look())
    history.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    assert b"event: progress" not in b"".join(watch.look())
    history.write_bytes(whole)
    assert b"".join(watch.look()).count(b"event: progress") == whole.count(b"\n") - 2


@pytest.mark.slow
def test_fork_starts_from_the_weights_and_adds_new_characters(api, store):
    upload(api, name="mine")
    train_all(store)
    answer = api.post(
        "/runs/mine/fork",
        params={"name": "more", "steps": 10, "learning_rate": 1e-9, "weight_decay": 0},
        content=(TEXT + "ÄÖÜ" * 200).encode(),
        headers=PLAIN,
    )
    assert answer.status_code == 202, answer.text
    train_all(store)
    mine, more = (load(store.get(name).checkpoints()[step]) for name, step in (("mine", 40), ("more", 10)))
    assert set(more.vocabulary.characters) - set(mine.vocabulary.characters) == set("ÄÖÜ")
    known = [more.vocabulary.encode(character)[0] for character in mine.vocabulary.characters]
    for name, part in (("layer0.W", slice(None)), ("layer0.U", known)):
        old, new = mine.network().parameters[name], more.network().parameters[name]
        assert abs(new[part] - old).max() < 1e-5
    assert api.get("/runs/more").json()["parent"] == "mine@40"
    assert api.post("/runs/mine/fork", params={"hidden": 9}).status_code == 422


@pytest.mark.slow
def test_exported_run_is_the_same_model_after_an_import(api, store):
    upload(api, name="mine", licence="public domain")
    train_all(store)
    exported = api.get("/runs/mine/export")
    assert exported.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(exported.content)) as archive:
        assert "public domain" in archive.read("README.md").decode()
    imported = api.post(
        "/runs/import",
        params={"name": "came"},
        content=exported.content,
        headers={"content-type": "application/zip"},
    )
    assert imported.status_code == 201, imported.text
    requests = ({"prompt": "the", "length": 50, "seed": 3, "model": name} for name in ("mine", "came"))
    mine, came = (api.post("/generate", json=request).json()["text"] for request in requests)
    assert mine == came
    torn = exported.content[:-200]
    refused = api.post(
        "/runs/import", params={"name": "torn"}, content=torn, headers={"content-type": "application/zip"}
    )
    assert refused.status_code == 422


def test_training_and_deleting_need_a_key_with_the_right(store, serving):
    store.root.mkdir()
    api = serving(store.root, api_keys="ann:r,tom:t:train,eve:a:admin")
    statuses = {}
    for secret in ("r", "t", "a"):
        api.headers["authorization"] = f"Bearer {secret}"
        posted = upload(api, name=f"of-{secret}").status_code
        statuses[secret] = (api.get("/runs").status_code, posted, api.delete("/runs/of-t").status_code)
    assert statuses == {"r": (200, 403, 403), "t": (200, 202, 403), "a": (200, 202, 200)}


def test_text_is_inspected_without_being_trained(api, store):
    text = b"the same line again\n" * 300
    answer = api.post(
        "/runs/check", params={"minutes": 2}, files={"file": ("My Notes.txt", text)}, data={"hidden": 24}
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["name"], body["characters"], body["hidden"]) == ("my-notes", len(text), 24)
    assert "repeated_lines" in {finding["code"] for finding in body["findings"]}
    assert body["expected_seconds"] == 120
    low, high = body["expected_loss"]
    assert 0 <= low <= high
    refused = api.post(
        "/runs/check", content=b"\xff\xfe\x00too short", headers={"content-type": "text/plain"}
    )
    assert refused.status_code == 422
    assert not store.list()
    assert not left_behind(store)


def test_urlencoded_form_is_read_as_a_form(api, store):
    text = "the cat sat\n" * 400
    answer = api.post("/runs", data=SMALL | {"name": "mine", "text": text})
    assert answer.request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert answer.status_code == 202, answer.text
    assert store.get("mine").text() == text
    checked = api.post("/runs/check", data={"text": text, "steps": 7, "name": "x"})
    assert checked.json()["name"] == "x"
    assert api.post("/runs", data={"text": text, "foo": 1}).status_code == 422


def test_raw_text_with_the_form_type_of_curl_is_read_as_text(api, store):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    raw = b"x = 1 & y = 2 + 3 %41\n" * 400
    assert api.post("/runs", content=raw, headers=headers, params=SMALL | {"name": "mine"}).is_success
    assert store.get("mine").text() == raw.decode()


def test_json_that_curl_declares_as_a_form_is_read_as_json(api, store):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    text = "the cat sat\n" * 400
    body = json.dumps(SMALL | {"name": "mine", "text": text})
    assert api.post("/runs", content=body, headers=headers).status_code == 202
    assert store.get("mine").text() == text
    for raw in ('{"text": "a b c"}\n' * 400, "{" + text, '{"rows": "' + "the cat " * 400 + '"}'):
        answer = api.post("/runs/check", content=raw, headers=headers)
        assert answer.json()["characters"] == len(raw)


def test_text_too_long_for_a_field_is_refused_with_advice(api):
    answer = api.post("/runs/check", files={"text": (None, "the cat sat\n" * 20_000)})
    assert answer.status_code == 400
    assert "send a longer text as a file of the form" in answer.json()["error"]["message"]
    answer = api.post("/runs/check", files={"text": ("a.txt", "the cat sat\n" * 20_000)})
    assert answer.json()["characters"] == 240_000


def test_run_names_the_blas_kernel_that_trained_it(client: httpx.Client):
    assert client.get("/runs/gru").json()["kernel"] == kernel()
