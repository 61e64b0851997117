"""Files and fine-tuning jobs, driven by the real `openai` package."""

import io
import json
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.store.run_store import RunStore
from app.training.worker import Worker
from model.checkpoint import load
from tests.support.runs import small_text, stop, wait_until, worker_process

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # in the code of the client
    import openai
    from openai.types.fine_tuning import FineTuningJob

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

TEXT = small_text(6000)
SMALL = {"preset": "gru", "hidden": 8, "embedding": 0, "shards": 1, "sample_every": 0}
FEW = {"n_epochs": 2, "batch_size": 4}


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    made = RunStore(tmp_path / "checkpoints")
    made.root.mkdir()
    return made


@pytest.fixture
def api(store: RunStore, serving: Callable[..., httpx.Client]) -> httpx.Client:
    return serving(store.root, max_corpus_bytes=100_000)


@pytest.fixture
def ai(api: httpx.Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{api.base_url}/v1".replace("//v1", "/v1"), api_key="none", max_retries=0
    ) as made:
        yield made


def uploaded(ai: openai.OpenAI, content: str | bytes = TEXT, name: str = "book.txt") -> str:
    data = content if isinstance(content, bytes) else content.encode()
    return ai.files.create(file=(name, io.BytesIO(data)), purpose="fine-tune").id


def job_on(ai: openai.OpenAI, file: str, model: str = "auto", **more: Any) -> FineTuningJob:
    given = {"hyperparameters": FEW, "extra_body": {"options": SMALL if model == "auto" else {}}} | more
    return ai.fine_tuning.jobs.create(model=model, training_file=file, **given)


def train_all(store: RunStore) -> None:
    worker = Worker(store, lambda: False)
    while (run := worker.next_run()) is not None:
        worker.train(run)


@pytest.mark.slow
def test_uploaded_file_becomes_a_model_that_generates(ai, store):
    job = job_on(ai, uploaded(ai), suffix="Mine")
    assert (job.status, job.fine_tuned_model, job.object) == ("queued", None, "fine_tuning.job")
    assert (job.hyperparameters.n_epochs, job.hyperparameters.batch_size) == (2, 4)
    assert isinstance(job.hyperparameters.n_epochs, int)
    assert job.method.supervised.hyperparameters.n_epochs == 2
    train_all(store)
    done = ai.fine_tuning.jobs.retrieve(job.id)
    assert (done.status, done.fine_tuned_model) == ("succeeded", "mine")
    assert done.finished_at >= done.created_at
    assert done.trained_tokens == store.get("mine").status.step * 64 * 4
    written = ai.completions.create(model=done.fine_tuned_model, prompt="the ", max_tokens=20, seed=1)
    assert len(written.choices[0].text) == 20
    points = ai.fine_tuning.jobs.checkpoints.list(job.id).data
    assert [point.step_number for point in points] == sorted(store.get("mine").checkpoints(), reverse=True)
    assert points[0].metrics.valid_loss > 0
    older = ai.completions.create(model=points[-1].fine_tuned_model_checkpoint, prompt="the ", max_tokens=5)
    assert older.model == "mine@0"


def test_files_are_listed_read_and_deleted(ai, store):
    ids = [uploaded(ai, f"{number} {TEXT}", f"{number}.txt") for number in range(3)]
    assert [file.id for file in ai.files.list()] == ids[::-1]
    assert [file.id for file in ai.files.list(limit=2)] == ids[::-1]  # the client requests the next page
    assert [file.id for file in ai.files.list(order="asc")] == ids
    assert list(ai.files.list(purpose="batch")) == []
    found = ai.files.retrieve(ids[1])
    assert (found.filename, found.bytes, found.purpose) == ("1.txt", len(TEXT.encode()) + 2, "fine-tune")
    assert ai.files.content(ids[1]).read() == f"1 {TEXT}".encode()
    assert ai.files.wait_for_processing(ids[1]).status == "processed"
    assert ai.files.delete(ids[1]).deleted
    for ask in (ai.files.retrieve, ai.files.content, ai.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(ids[1])
    assert len(list((store.root / ".files").iterdir())) == 2


@pytest.mark.slow
def test_job_continues_from_a_checkpoint_of_a_run(ai, store):
    file = uploaded(ai)
    first = job_on(ai, file, suffix="first", seed=3)
    train_all(store)
    further = uploaded(ai, TEXT + "ÄÖÜ" * 200, "more.txt")
    half = {"n_epochs": 1, "learning_rate_multiplier": 0.5}
    second = job_on(
        ai, further, "first@0", method={"type": "supervised", "supervised": {"hyperparameters": half}}
    )
    assert (second.model, second.training_file) == ("first@0", further)
    run = store.get(second.id.removeprefix("ftjob-"))
    assert run.config.learning_rate == 0.5 * store.get("first").config.learning_rate
    train_all(store)
    known = load(run.checkpoints()[0]).vocabulary.characters
    assert set("ÄÖÜ") < set(known)
    assert [job.id for job in ai.fine_tuning.jobs.list()] == [second.id, first.id]
    assert [job.id for job in ai.fine_tuning.jobs.list(limit=1)] == [second.id, first.id]


@pytest.mark.slow
def test_job_is_paused_resumed_and_cancelled_during_training(ai, store):
    options = SMALL | {"steps": 1_000_000, "checkpoint_every": 200}
    job = ai.fine_tuning.jobs.create(
        model="auto", training_file=uploaded(ai), extra_body={"options": options}
    )

    def status() -> str:
        return str(ai.fine_tuning.jobs.retrieve(job.id).status)

    with worker_process(store) as worker:
        wait_until(lambda: status() == "running", "the job is running")
        wait_until(lambda: len(ai.fine_tuning.jobs.list_events(job.id).data) > 3, "there are events")
        ai.fine_tuning.jobs.pause(job.id)
        wait_until(lambda: status() == "paused", "the job is paused")
        ai.fine_tuning.jobs.resume(job.id)
        wait_until(lambda: status() == "running", "the job is running again")
        ai.fine_tuning.jobs.cancel(job.id)
        wait_until(lambda: status() == "cancelled", "the job is cancelled")
        assert stop(worker)[0] == 0
    ended = ai.fine_tuning.jobs.retrieve(job.id)
    assert ended.fine_tuned_model == "book"
    with pytest.raises(openai.ConflictError):
        ai.fine_tuning.jobs.pause(job.id)


@pytest.mark.slow
def test_events_of_a_job_are_paged(ai, store):
    job = job_on(ai, uploaded(ai))
    train_all(store)
    every = list(ai.fine_tuning.jobs.list_events(job.id, limit=3))
    assert len({event.id for event in every}) == len(every) > 6
    assert every[-1].message.startswith("Queued on book.txt, 6,000 characters")
    assert every[0].message.startswith("Succeeded")
    losses = [event.data for event in every if event.type == "metrics"]
    points = store.get("book").history()
    assert [data["step"] for data in losses] == [point["step"] for point in reversed(points)]
    assert losses[0]["train_loss"] == points[-1]["loss"]
    assert any("Checkpoint book@0" in event.message for event in every)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([{"text": "one"}, {"text": "two\n"}], "one\ntwo\n\n"),
        ([{"prompt": "one ", "completion": "two"}], "one two\n"),
        (
            [{"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "é😀"}]}],
            "one\né😀\n",
        ),
    ],
)
def test_json_lines_of_examples_are_read_as_a_text(ai, store, lines, text):
    content = "\n".join(map(json.dumps, lines * 400))
    job_on(ai, uploaded(ai, content, "examples.JSONL"), suffix="mine")
    assert store.get("mine").text() == text * 400


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON"),
        ("[1]", "has no text, no prompt"),
        ('{"prompt": "a"}', "has no text, no prompt"),
        ('{"messages": [{"role": "user"}]}', "has no text, no prompt"),
        ('{"messages": []}', "has no text, no prompt"),
        ("[" * 50_000, "is not JSON"),
    ],
)
def test_invalid_line_of_examples_is_refused_with_its_number(ai, store, line, reason):
    file = uploaded(ai, '{"text": "a"}\n' * 700 + line, "examples.jsonl")
    with pytest.raises(openai.BadRequestError) as refused:
        job_on(ai, file)
    assert f"line 701 of examples.jsonl {reason}" in refused.value.message
    assert store.list() == []


def test_zip_of_texts_is_read_as_one_text(ai, store):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a.txt", "one " * 700)
        archive.writestr("b.txt", "two " * 700)
    job_on(ai, uploaded(ai, data.getvalue(), "texts.zip"), suffix="mine")
    assert store.get("mine").text() == "one " * 700 + "\n" + "two " * 700


def test_number_of_epochs_is_an_integer_in_the_answer(ai, api):
    job = job_on(ai, uploaded(ai))
    used = api.get(f"/v1/fine_tuning/jobs/{job.id}").json()["hyperparameters"]
    assert (used["n_epochs"], type(used["n_epochs"])) == (2, int)


def test_suffix_of_a_job_keeps_its_dot(ai, store):
    file = uploaded(ai, name="notes.v2.txt")
    assert job_on(ai, file, suffix="tuned-1.5").id == "ftjob-tuned-1.5"
    assert job_on(ai, file, suffix="tuned-1.5").id == "ftjob-tuned-1.5-2"
    assert job_on(ai, file, suffix="Mine.v2").id == "ftjob-mine.v2"
    assert job_on(ai, file).id == "ftjob-notes.v2"


def test_refused_job_has_the_openai_error_format(ai, store):
    file = uploaded(ai)
    short = uploaded(ai, "short", "short.txt")
    broken = uploaded(ai, b"caf\xe9 " * 900, "latin.txt")
    for wrong, part in (
        ({"training_file": short}, "at least"),
        ({"training_file": broken}, "not utf-8"),
        ({"hyperparameters": {"n_epochs": 0}}, "n_epochs must be > 0"),
        ({"hyperparameters": {"n_epochs": "many"}}, "n_epochs"),
        ({"hyperparameters": {"n_epochs": 1.5}}, "n_epochs must be a whole number. Given: 1.5"),
        ({"hyperparameters": {"batch_size": 0}}, "batch_size"),
        ({"validation_file": file}, "validation_file is not supported"),
        ({"extra_body": {"options": {"hidden": 0}}}, "hidden must be between"),
        (
            {"extra_body": {"options": {"steps": 3}}, "hyperparameters": FEW},
            "epochs cannot be given with steps",
        ),
        ({"method": {"type": "dpo"}}, "method.type"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            ai.fine_tuning.jobs.create(**{"model": "auto", "training_file": file} | wrong)
        assert part in refused.value.message
    for model, training_file in (
        ("gpt-4o", file),
        ("auto", "file-0"),
        ("auto", "../../etc/passwd"),
        ("../x", file),
    ):
        with pytest.raises(openai.NotFoundError):
            job_on(ai, training_file, model)
    for job in ("ftjob-none", "none", "ftjob-../x"):
        with pytest.raises(openai.NotFoundError):
            ai.fine_tuning.jobs.retrieve(job)
    with pytest.raises(openai.BadRequestError):
        ai.files.create(file=("a.txt", b"a"), purpose="vision")
    with pytest.raises(openai.APIStatusError) as large:
        uploaded(ai, b"a" * 100_001)
    assert large.value.status_code == 413
    assert store.list() == []
    assert not [path for path in store.root.iterdir() if path.name.startswith(".tmp")]


def test_files_are_limited_and_links_are_not_followed(ai, store, serving, tmp_path):
    file = uploaded(ai)
    secret = tmp_path / "secret.txt"
    secret.write_text("secret " * 900)
    content = store.root / ".files" / file / "content"
    content.unlink()
    content.symlink_to(secret)
    with pytest.raises(openai.InternalServerError) as refused:
        ai.files.content(file)
    assert "secret" not in refused.value.message
    outside = shutil.copytree(content.parent, tmp_path / "outside", symlinks=True)
    away = store.root / ".files" / "file-aaaaaaaaaaaaaaaaaaaaaaaa"
    away.symlink_to(outside)
    for ask in (ai.files.retrieve, ai.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(away.name)
    assert secret.exists()
    assert outside.exists()
    few = serving(store.root, max_runs=1)
    answer = few.post("/v1/files", files={"file": ("b.txt", b"b")}, data={"purpose": "fine-tune"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")


def test_jobs_need_the_same_rights_as_runs(store, serving):
    api = serving(store.root, api_keys="ann:r,tom:t:train,eve:a:admin")
    statuses = {}
    for secret in ("r", "t", "a"):
        api.headers["authorization"] = f"Bearer {secret}"
        form = {"files": {"file": ("a.txt", TEXT.encode())}, "data": {"purpose": "fine-tune"}}
        posted = api.post("/v1/files", **form)
        file = posted.json().get("id", "none")
        asked = {"model": "auto", "training_file": file, "hyperparameters": FEW, "options": SMALL}
        made = api.post("/v1/fine_tuning/jobs", json=asked).status_code
        listed = api.get("/v1/fine_tuning/jobs").status_code
        statuses[secret] = (posted.status_code, made, listed, api.delete(f"/v1/files/{file}").status_code)
    assert statuses == {"r": (403, 403, 200, 403), "t": (200, 200, 200, 403), "a": (200, 200, 200, 200)}
