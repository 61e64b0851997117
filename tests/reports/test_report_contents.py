"""The contents of reports of all kinds of runs; the text does not wait for the gradient check."""

import asyncio
import contextlib
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import httpx
import pytest

from app.engine.loaded_model import LoadedModel
from app.engine.models import ModelStore
from app.errors import DeadlineError
from app.reports.report import ReportPages, shown_samples, words_key
from app.reports.word_counts import compare, learn
from app.store import history
from app.store.records import Latest
from app.store.run import Run
from app.store.run_store import RunStore
from app.training.trainer import train_run
from tests.support.runs import classic_like, gru_like, small_text, wait_until

KNOWN_ONCE = "Ω"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without a held-out part, on a text in which one character occurs once."""
    store = RunStore(tmp_path_factory.mktemp("reports") / "checkpoints")
    config = gru_like(validation_fraction=0.0, validate_every=0, best_by="smooth_loss", steps=40)
    run = store.create("whole", config, small_text() + KNOWN_ONCE, "small.txt")
    train_run(run, lambda: False)
    samples = [sample | {"text": sample["text"].replace(KNOWN_ONCE, "")} for sample in run.samples()]
    samples[1]["text"] += KNOWN_ONCE
    run.samples_path.write_bytes(b"".join(map(history.encode, samples)))
    return store.root


def plain(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradient checks time out, as they take seconds and these tests are about the rest of the report."""

    async def refuse(checks: object, model: object, method: object, cell: str | None = None) -> NoReturn:
        await asyncio.sleep(0.5)
        raise DeadlineError("the gradient check took longer than 1 s")

    monkeypatch.setattr("app.reports.gradchecks.GradientChecks.report", refuse)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["html", "markdown"])
@pytest.mark.usefixtures("unchecked")
def test_report_has_method_caption_author_and_rare_characters(root, serving, form):
    client = serving(root)
    details = {"author": "A. <Student>", "date": "2026-11-26", "format": form}
    answer = client.get("/report", params={"model": "whole", **details})
    assert answer.status_code == 200
    text = plain(answer.text)
    characters = len(set(small_text() + KNOWN_ONCE))
    assert f"{characters} distinct characters" in text
    assert "clipped to a norm of 1" in text
    assert "Loss over updates, in nats per character" in text
    assert "2026-11-26" in text
    assert ("A. &lt;Student&gt;" if form == "html" else "A. ") in answer.text
    once = text.split("Characters that occur only once in the text")[1]
    assert re.match(r": (“Ω”|`Ω`) \((in the passage )?at step 20\)", once)
    assert "The derivation: " in text
    link = re.search(r"href='([^']+)'|\]\((derivation)\)", answer.text)
    assert link
    derivation = client.get(link[1] or link[2])
    assert "def gru" in derivation.text


@pytest.mark.parametrize("form", ["html", "markdown"])
@pytest.mark.usefixtures("unchecked")
def test_report_counts_in_singular_and_plural(trained, serving, form):
    config = classic_like(steps=1, sample_every=1)
    train_run(trained.create("short", config, small_text(), "small.txt"), lambda: False)
    text = plain(serving(trained.root).get("/report", params={"model": "short", "format": form}).text)
    assert "1 update so far" in text
    assert "After 1 update," in text
    assert "1 stream of the text" in text
    assert not re.search(r"\b1 [a-z]+s\b", text)


def test_report_has_blanks_for_author_and_date(client: httpx.Client):
    assert client.get("/report", params={"model": "gru"}).text.count('class="blank"') == 2


def test_gradients_have_the_names_and_order_of_the_assignment(client: httpx.Client):
    page = client.get("/report", params={"model": "classic"}).text
    rows = re.findall(r"<tr><td>([^<]+)</td>", page)
    assert rows == ["W", "V", "U", "b", "c", "initial state"]


def test_markdown_report_links_its_picture(client: httpx.Client):
    text = client.get("/report", params={"model": "gru", "format": "markdown"}).text
    assert max(map(len, text.splitlines())) < 2_000
    link = re.search(r"!\[[^]]*\]\(([^)]+)\)", text)[1]
    assert client.get(link).content.startswith(b"<?xml")


@pytest.mark.slow
def test_command_writes_the_picture_next_to_the_markdown(trained, tmp_path):
    command = [sys.executable, "-P", "-m", "app.cli", "report", "gru", "--store", str(trained.root)]
    target = tmp_path / "my report.md"
    options = ["--markdown", "--out", str(target), "--author", "A. Student"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    text = target.read_text(encoding="utf-8")
    assert "(my%20report.svg)" in text
    assert "A. Student" in text
    assert (tmp_path / "my report.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.slow
def test_imported_run_without_its_text_has_a_report(client, serving, tmp_path):
    exported = client.get("/runs/gru/export", params={"step": "best"}).content
    other = serving(tmp_path / "other")
    assert other.post("/runs/import", content=exported).status_code == 201
    page = other.get("/report", params={"model": "gru"}).text
    assert "imported without its text" in page
    assert len(re.findall(r"<td>\d\.\de-\d\d</td>", page)) >= 10
    assert "After 20 updates" in page


@pytest.mark.slow
def test_queued_run_has_a_report(trained, serving):
    trained.create("waiting", gru_like(), small_text(), "small.txt")
    answer = serving(trained.root).get("/report", params={"model": "waiting"})
    assert answer.status_code == 200
    assert "Not checked" in answer.text
    assert str(trained.root) not in answer.text


@pytest.mark.slow
def test_report_is_complete_if_the_best_checkpoint_is_replaced(trained, serving, monkeypatch):
    """The training writes a better one and removes the best checkpoint after it was found."""
    run = trained.get("gru")
    latest = run.latest()
    target = run.best_path(59)

    class Replacing(ModelStore):
        def _load_cached(self, found: Run, path: Path, digest: str | None) -> LoadedModel:
            if path.name.startswith("best-") and not target.exists():
                path.rename(target)
                best = latest.best.model_copy(update={"file": target.name})
                run.write_latest(Latest(newest=latest.newest, best=best))
            return super()._load_cached(found, path, digest)

    monkeypatch.setattr("app.main.ModelStore", Replacing)
    page = serving(trained.root).get("/report", params={"model": "gru"}).text
    assert target.exists()
    assert len(re.findall(r"<td>\d\.\de-\d\d</td>", page)) >= 10


@pytest.mark.slow
def test_report_does_not_wait_for_a_slow_gradient_check(trained, serving, monkeypatch):
    arrived, waited = threading.Event(), threading.Event()

    async def refuse(*_: object) -> NoReturn:
        for _ in range(1000):
            if arrived.is_set():
                break
            await asyncio.sleep(0.01)
        else:
            waited.set()
        raise DeadlineError("the gradient check took longer than 1 s")

    monkeypatch.setattr("app.reports.gradchecks.GradientChecks.report", refuse)
    client = serving(trained.root)
    with client.stream("GET", "/report", params={"model": "gru"}) as answer:
        pieces = answer.iter_text()
        early = ""
        while "What to look for" not in early:
            early += next(pieces)
        assert "After 20 updates" in early
        assert "data:image/svg+xml" in early
        assert "The gradients" not in early
        assert not waited.is_set(), "the text waits for the gradients"
        arrived.set()
        late = "".join(pieces)
    assert "took longer than 1 s" in late
    assert late.rstrip().endswith("</html>")


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_unread_reports_take_a_limited_number_of_places(trained, serving):
    client = serving(trained.root)
    downloads = client.app.state.services.downloads
    downloads.limit = 2
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            answer = stack.enter_context(client.stream("GET", "/report", params={"model": "gru"}))
            assert answer.status_code == 200
        refused = client.get("/report", params={"model": "gru"})
        assert (refused.status_code, "retry-after" in refused.headers) == (429, True)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_report_is_made_outside_the_event_loop_and_its_words_once(trained, serving, monkeypatch):
    """The words are counted in the helper process, which the patch of `learn` does not reach."""

    def refuse(text: str) -> NoReturn:
        raise AssertionError("the words are counted in the server process")

    def first(pages: ReportPages) -> str:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return make_first(pages)

    make_first = ReportPages.first
    monkeypatch.setattr(ReportPages, "first", first)
    monkeypatch.setattr("app.reports.report.learn", refuse)
    client = serving(trained.root)
    helper = client.app.state.services.renderer.helper
    for _ in range(2):
        page = client.get("/report", params={"model": "gru"}).text
        assert "What to look for" in page
        assert "cannot be read" not in page
        assert len([key for key in helper._results if key[0] == "words"]) == 1


@pytest.mark.usefixtures("unchecked")
def test_report_that_takes_too_long_is_cut_off_and_releases_its_place(trained, serving, monkeypatch):
    client = serving(trained.root, plot_seconds=30, gradcheck_seconds=30)
    monkeypatch.setattr("app.api.native.report.SLACK_SECONDS", 0.2 - 90)
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/report", params={"model": "gru"})
    wait_until(lambda: client.app.state.services.downloads.taken == 0, "the place is released")


def test_counted_words_are_cached_by_the_text_of_the_run():
    first, second = (SimpleNamespace(spec=SimpleNamespace(corpus_sha256=digest)) for digest in "ab")
    assert words_key(first, ["x"]) == words_key(first, ["x"])
    assert words_key(first, ["x"]) != words_key(second, ["x"])
    assert words_key(first, ["x"]) != words_key(first, ["y"])


def test_words_of_the_beginning_of_a_long_text_are_known(monkeypatch):
    monkeypatch.setattr("app.reports.word_counts.READ", 13)
    known = learn("a sentence, Known, later, Later")
    assert known.words == {"a", "sentence", "k"}


def test_samples_of_a_long_run_are_thinned(trained):
    run = trained.get("gru")
    line = run.samples()[0]
    run.samples_path.write_bytes(b"".join(history.encode(line | {"step": step}) for step in range(1000)))
    steps = [sample["step"] for sample in shown_samples(run)]
    assert (steps[0], steps[-1]) == (0, 999)
    assert 40 <= len(steps) <= 51


def test_passages_with_characters_that_occur_once_are_found():
    found = compare(learn("abcabcX"), ["a", "Xa", "b", "XX"])
    assert found.places == {"X": [1, 3]}
    assert found.characters == 4


def test_report_of_a_deleted_run_is_404(trained, serving):
    client = serving(trained.root)
    shutil.rmtree(trained.get("classic").path)
    assert client.get("/report", params={"model": "classic"}).status_code == 404
