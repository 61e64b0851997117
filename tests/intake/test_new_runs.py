"""New runs: their names, and texts whose file names are not UTF-8."""

import io
from pathlib import Path

import pytest

from app.cli import main
from app.errors import InvalidRequestError
from app.intake.new_runs import fork, new_run
from app.intake.options import Options
from app.store.files import Source
from app.store.run_store import RunStore, default_name, name_from
from app.store.space import Budget, Limits
from app.training.trainer import train_run
from tests.support.runs import gru_like, small_text
from tests.support.settings import without_settings

SMALL = {"preset": "gru", "hidden": 8, "embedding": 0, "streams": 4, "shards": 1, "steps": 4}


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("My Text.txt", "my-text"),
        ("report.docx", "report"),
        ("tuned-1.5.txt", "tuned-1.5"),
        ("draft-1.5", "draft-1.5"),
        ("a.tar.gz", "a.tar"),
        ("caf\udce9.txt", "caf"),
        ("...", "run"),
    ],
)
def test_run_is_named_after_its_file_without_the_extension(file, name):
    assert default_name(file) == name


def test_name_from_a_suggestion_keeps_its_extension():
    assert name_from("tuned-1.5") == "tuned-1.5"
    assert name_from("My model.v2") == "my-model.v2"


def test_run_has_its_suggested_name(tmp_path):
    store = RunStore(tmp_path / "store")
    text = Source("text.txt", io.BytesIO(small_text().encode()))
    limits = Limits(1_000_000, 10, Budget(store, 0))
    assert new_run(store, SMALL, [text], limits, suggested="tuned-1.5").run.name == "tuned-1.5"


@pytest.mark.parametrize("file", ["page.html", "lines.jsonl", "book.ipynb", "film.srt", "text.txt"])
def test_fork_trains_on_the_text_of_its_parent_unchanged(tmp_path, file):
    store = RunStore(tmp_path / "store")
    text = "1\n<p>a &amp; b</p>\n\x1a\n" + small_text() + "{}\x1a"
    parent = store.create("parent", gru_like(steps=1), text, file)
    train_run(parent, lambda: False)
    child = fork(store, "parent", {}, [], Limits(1_000_000, 10, Budget(store, 0))).run
    assert (child.path / "corpus.txt").read_text() == text
    assert child.spec.corpus_name == file


@pytest.mark.parametrize("name", ["../x", "", "X", "a" * 65, 5, ".x"])
def test_invalid_name_of_a_new_run_is_refused(name):
    with pytest.raises(InvalidRequestError, match="name must be 1 to 64 characters of a-z") as caught:
        Options.parse({"name": name})
    assert caught.value.field == "name"


@pytest.fixture
def latin1_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    without_settings(monkeypatch)
    path = Path("caf\udce9.txt")  # the bytes of café in Latin-1
    path.write_text(small_text(), "utf-8")
    return path


def options() -> list[str]:
    return [part for name, value in SMALL.items() for part in (f"--{name}", str(value))]


def test_file_with_a_non_utf8_name_is_trained_on(latin1_file):
    assert main(["train", str(latin1_file), *options()]) == 0
    run = RunStore("checkpoints").get("caf")
    assert run.spec.corpus_name == "caf\ufffd.txt"


@pytest.mark.slow
def test_file_with_a_non_utf8_name_is_added_or_refused_by_import(latin1_file, capsys):
    assert main(["runs", "add", str(latin1_file), *options()]) == 0
    assert RunStore("checkpoints").get("caf").spec.corpus_name == "caf\ufffd.txt"
    assert main(["runs", "import", str(latin1_file)]) == 2
    assert "not an exported run" in capsys.readouterr().err


@pytest.mark.slow
def test_missing_file_with_a_non_utf8_name_is_reported_in_one_line(latin1_file, capfd):
    for command in (
        *(["train"], ["sweep"], ["runs", "add"], ["runs", "import"], ["serve", "--port", "0", "--corpus"]),
        *(
            ["generate", "--model"],
            ["report"],
            ["runs", "show"],
            ["runs", "merge", "x"],
            ["gradcheck", "--cell"],
        ),
        *(["train", str(latin1_file), "--encoding"], ["runs", "add", str(latin1_file), "--encoding"]),
    ):
        assert main([*command, "n\udce9.txt"]) == 2
        error = capfd.readouterr().err
        assert error.count("\n") == 1
        assert "Traceback" not in error


def test_default_text_with_a_non_utf8_name_is_queued(latin1_file, tmp_path):
    from app.intake.default_runs import queue_defaults
    from app.settings import load_settings

    latin1_file.write_text(small_text(60_000), "utf-8")
    store = RunStore(tmp_path / "store")
    queue_defaults(store, load_settings(corpus=latin1_file))
    assert {run.spec.corpus_name for run in store.list()} == {"caf\ufffd.txt"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--seed", str(2**63)], "seed must be between -9223372036854775808 and"),
        (["--length", "1000000000"], "length must be between 1 and"),
    ],
)
def test_generate_refuses_a_seed_or_length_out_of_range(trained, capsys, arguments, complaint):
    assert main(["generate", "--store", str(trained.root), *arguments]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_runs_work_with_a_long_temporary_folder(latin1_file, tmp_path, monkeypatch, capsys):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    assert main(["runs", "list"]) == 0
    assert "no run" in capsys.readouterr().out


@pytest.mark.slow
def test_files_can_be_written_under_names_that_are_not_utf8(latin1_file, trained, capsys):
    store = ["--store", str(trained.root)]
    for out in ("r\udce9.html", "r\udce9.md"):
        markdown = ["--markdown"] if out.endswith("md") else []
        assert main(["report", "gru", "--out", out, "--author", "Ren\udce9", *markdown, *store]) == 0
        assert Path(out).exists()
    assert "(r%E9.svg)" in Path("r\udce9.md").read_text()
    assert Path("r\udce9.svg").exists()
    assert main(["runs", "export", "gru", "--out", "e\udce9.zip", *store]) == 0
    assert main(["runs", "import", "e\udce9.zip", "--name", "again", *store]) == 0
    assert trained.get("again").checkpoints()
