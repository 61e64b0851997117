import dataclasses
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from rich.logging import RichHandler

from app.cli import main
from app.commands.progress import LineDisplay
from app.store.records import Status
from app.store.run_store import RunStore
from model.checkpoint import load
from model.config import SETTINGS, RunConfig
from model.generation import generate
from model.sampling import SamplingConfig
from tests.support.runs import at_work, outcome, small_text, wait_until, worker_process
from tests.support.settings import without_settings

SMALL = "--hidden 8 --streams 4 --shards 1 --sequence-length 10 --steps 30 --sample-every 10"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a text, without settings in the environment, and without a store."""
    monkeypatch.chdir(tmp_path)
    without_settings(monkeypatch)
    (tmp_path / "My Text.txt").write_text(small_text(), "utf-8")
    yield tmp_path
    for handler in logging.getLogger().handlers[:]:  # the handler of the command, whose console is closed
        if isinstance(handler, RichHandler):
            logging.getLogger().removeHandler(handler)


def test_every_field_of_a_run_is_an_option(capsys):
    assert set(SETTINGS) == {field.name for field in dataclasses.fields(RunConfig)}
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    for name in set(SETTINGS) - {"preset"}:
        assert f"--{name.replace('_', '-')}" in shown


@pytest.mark.slow
def test_training_for_minutes_is_planned_and_can_be_repeated(folder: Path, capsys):
    command = ["train", "My Text.txt", "--minutes", "0.05", "--hidden", "8", "--members", "2"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "2 networks side by side, each with 8 GRU units" in out
    assert "a 5-gram reaches" in out
    assert "It ends at about" in out
    run = RunStore("checkpoints").get("my-text")
    assert (run.config.preset, run.config.minutes, run.config.members) == ("planned", 0.05, 2)
    assert run.status.seconds < 2 * 3

    assert main(command) == 0
    assert "Checking the text" not in capsys.readouterr().out
    assert [other.name for other in RunStore("checkpoints").list()] == ["my-text"]


@pytest.mark.slow
def test_trained_run_can_generate_and_is_listed(folder: Path, capsys):
    assert main(["train", "My Text.txt", *SMALL.split(), "--learning-rate", "0.02"]) == 0
    out = capsys.readouterr().out
    assert "sample at step 20:" in out
    assert "my-text: finished, step 30 of 30, loss" in out
    run = RunStore("checkpoints").get("my-text")
    assert (run.config.hidden, run.config.learning_rate, run.config.preset) == (8, 0.02, "gru-pair-muon")
    assert [sample["step"] for sample in run.samples()] == [0, 10, 20, 30, 30]

    command = "generate --prompt the --length 40 --temperature 0.7 --top-k 5 --seed 3 --stop zzz"
    assert main(command.split()) == 0
    captured = capsys.readouterr()
    checkpoint = load(run.checkpoint_path(30))
    sampling = SamplingConfig(temperature=0.7, top_k=5)
    expected = generate(checkpoint.network(), checkpoint.vocabulary, "the", 40, sampling, 3, ("zzz",))
    assert captured.out == "the" + expected.text + "\n"
    assert captured.err == "my-text@30, seed 3, ended by length\n"
    assert main(["generate", "--model", "my-text@10", "--length", "5"]) == 0
    assert "my-text@10" in capsys.readouterr().err

    assert main(["runs"]) == 0
    assert re.search(r"my-text +finished +30 +30 ", capsys.readouterr().out)


@pytest.mark.slow
def test_same_command_continues_a_run_and_keeps_a_finished_one(folder: Path, capsys, monkeypatch):
    command = ["train", "My Text.txt", *SMALL.split(), "--record-every", "1"]
    assert main([*command, "--name", "undisturbed"]) == 0

    def interrupt(self: LineDisplay, status: Status) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(LineDisplay, "show", interrupt)
        assert main(command) == 130
    stopped = RunStore("checkpoints").get("my-text")
    assert (stopped.status.state, stopped.status.step < 30) == ("queued", True)
    assert "Stopped at step" in capsys.readouterr().out
    assert main(command) == 0
    assert outcome(stopped) == outcome(RunStore("checkpoints").get("undisturbed"))
    before = {path.name: path.stat().st_mtime_ns for path in stopped.path.iterdir()}
    assert main(command) == 0
    assert {path.name: path.stat().st_mtime_ns for path in stopped.path.iterdir()} == before


def test_other_settings_start_another_run_unless_named(folder: Path, capsys):
    for seed in ("1", "2", "1"):
        assert main(["train", "My Text.txt", *SMALL.split(), "--seed", seed]) == 0
    assert [run.name for run in RunStore("checkpoints").list()] == ["my-text", "my-text-2"]
    assert main(["train", "My Text.txt", *SMALL.split(), "--seed", "3", "--name", "my-text"]) == 2
    assert "exists already, with seed 1 instead of 3: choose another --name" in capsys.readouterr().err


@pytest.mark.slow
def test_failed_run_is_retried_and_its_reason_reported(folder: Path, capsys):
    command = [
        "train",
        "My Text.txt",
        *SMALL.split(),
        "--learning-rate",
        "10",
        "--weight-decay",
        "10",
        "--clip",
        "none",
    ]
    heartbeats = set()
    for _ in range(2):
        assert main([*command, "--steps", "500"]) == 2
        assert "my-text failed: the loss became" in capsys.readouterr().err
        status = RunStore("checkpoints").get("my-text").status
        assert status.state == "failed"
        heartbeats.add(status.heartbeat)
    assert len(heartbeats) == 2


@pytest.mark.slow
def test_warning_is_shown_as_a_sentence(folder: Path, capsys):
    explode = "--preset gru --hidden 16 --streams 2 --sequence-length 10 --checkpoint-every 10 --clip none"
    command = f"{explode} --learning-rate 10 --steps 200 --validate-every 50 --weight-decay 0.3"
    main(["train", "My Text.txt", *command.split()])
    shown = capsys.readouterr().out
    assert re.search(r"WARNING +run my-text: (the loss|overfitting)", shown)
    assert "app.training.trainer" not in shown


@pytest.mark.slow
def test_train_command_next_to_a_worker_finishes_the_run(folder: Path, capsys):
    store = RunStore("checkpoints")
    store.root.mkdir()
    with worker_process(store):
        wait_until(lambda: at_work(store), "the worker looks for runs")
        assert main(["train", "My Text.txt", *SMALL.split()]) == 0
    out = capsys.readouterr().out
    assert "my-text: finished, step 30 of 30" in out


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("train none.txt", r"none\.txt"),
        ("train empty.txt", "empty"),
        ("train short.txt", "must have at least"),
        ("train short.txt --minutes 1", "must have at least"),
        (
            "train text.txt --preset x",
            "preset must be one of classic, gru, gru-pair, gru-pair-muon. Given: 'x'",
        ),
        ("train text.txt --hidden 0", "hidden must be between 1 and 4096. Given: 0"),
        ("train text.txt --hidden x", "--hidden"),
        ("train text.txt --hiden 3", "--hiden"),
        ("train text.txt --cell rnn", "cell must be one of elman, gru, lstm. Given: 'rnn'"),
        ("train text.txt --name ../x", "is not a valid run name"),
        ("train text.txt --store text.txt", r"text\.txt"),
        ("train", "text"),
        ("generate", "no checkpoint"),
        ("generate --model ../x", r"\.\./x"),
        ("generate --model none", "none"),
        ("generate --length 0", "length must be between 1 and 1,000,000. Given: 0"),
        ("generate --temperature -1", "temperature"),
        ("generate --top-p 2", "top_p"),
        ("generate --typical-p 0", "typical_p"),
        ("gradcheck --cell rnn", "cell must be one of"),
        ("gradcheck --method x", "method must be one of"),
        ("worker --nice 99", "--nice"),
        ("worker --store text.txt", r"text\.txt"),
        ("serve --port 99999", "port"),
        ("serve --port 0 --corpus short.txt", "must have at least"),
        ("serve --host nowhere.invalid", "cannot listen on nowhere.invalid"),
        ("serve --port 0", "there is no text at corpora/shakespeare.txt"),
        ("nonsense", "nonsense"),
    ],
)
def test_invalid_input_is_one_line_and_exit_code_2(folder: Path, capfd, command: str, complaint: str):
    Path("text.txt").write_text(small_text())
    Path("empty.txt").touch()
    Path("short.txt").write_text("abc")
    assert main(command.split()) == 2
    error = capfd.readouterr().err
    assert re.search(complaint, error)
    assert error.startswith("charloom: ")
    assert error.count("\n") == 1
    assert RunStore("checkpoints").list() == []


def test_store_held_by_a_worker_of_an_earlier_version_is_refused(folder: Path, capfd):
    store = RunStore("checkpoints")
    store.make_root()
    with FileLock(store.root / ".worker.lock"):
        assert main(["worker", "--until-idle"]) == 2
    assert "a worker of an earlier version holds" in capfd.readouterr().err
    assert main(["worker", "--until-idle"]) == 0


def test_gradcheck_of_a_cell_passes(folder: Path, capsys):
    # with 5 elements of a tensor, all may be so small that the difference of losses is mostly rounding
    command = "gradcheck --cell lstm --layers 2 --hidden 4 --elements 10"
    assert main(command.split()) == 0
    out = capsys.readouterr().out
    assert out.count("passed") == 2 * (2 * 3 + 2 + 1)  # methods x (layers x (U, W, b) + V, c + initial state)
    assert "FAILED" not in out


def test_gradcheck_of_the_assignment_shows_its_published_errors(folder: Path, capsys):
    assert main(["gradcheck", "--elements", "3", "--method", "centred"]) == 0
    out = capsys.readouterr().out
    for figure in ("2.54e-07", "1.77e-08", "2.55e-09", "2.18e-09", "1.55e-10"):
        assert figure in out
    assert "…" not in out


def test_failed_gradcheck_has_exit_code_1(folder: Path, capsys, monkeypatch):
    monkeypatch.setattr("model.gradcheck.LIMITS", {"centred": 0.0, "complex-step": 0.0})
    assert main(["gradcheck", "--hidden", "4", "--layers", "2", "--elements", "2"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_command_without_arguments_prints_the_help(capsys):
    assert main([]) == 0
    assert "Usage: charloom" in capsys.readouterr().out


@pytest.mark.slow
def test_closed_output_pipe_is_not_an_error(folder: Path):
    assert main(["train", "My Text.txt", *SMALL.split()]) == 0
    command = [sys.executable, "-m", "app.cli", "train", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_generate_drops_or_replaces_unknown_characters(trained, monkeypatch, capsys):
    command = ["generate", "--store", str(trained.root), "--length", "20"]
    assert main([*command, "--prompt", "the cat"]) == 0
    expected = capsys.readouterr().out
    assert main([*command, "--prompt", "thé “cat”"]) == 2
    assert "never seen: 'é' at position 2" in capsys.readouterr().err
    assert main([*command, "--prompt", "thé “cat”", "--unknown", "replace"]) == 0
    captured = capsys.readouterr()
    assert captured.out == expected
    assert "3 characters of the prompt changed" in captured.err
    monkeypatch.setenv("CHARLOOM_UNKNOWN", "replace")
    assert main([*command, "--prompt", "thé “cat”"]) == 0
    assert capsys.readouterr().out == expected
    assert main([*command, "--unknown", "skip"]) == 2
    assert "CHARLOOM_UNKNOWN" in capsys.readouterr().err


def test_generate_uses_the_configured_model(trained, monkeypatch, capsys):
    monkeypatch.setenv("CHARLOOM_MODEL", "classic@0")
    command = ["generate", "--store", str(trained.root), "--length", "5"]
    assert main(command) == 0
    assert capsys.readouterr().err.startswith("classic@0, ")
    assert main([*command, "--model", "gru"]) == 0
    assert capsys.readouterr().err.startswith("gru@60, ")


def test_generate_with_a_negative_seed_gives_the_text_of_the_server(client, trained_root, capsys):
    command = ["generate", "--store", str(trained_root), "--prompt", "the ", "--length", "20"]
    for seed in (-1, -(2**63)):
        body = {"prompt": "the ", "length": 20, "seed": seed}
        assert main([*command, "--seed", str(seed)]) == 0
        assert capsys.readouterr().out == f"the {client.post('/generate', json=body).json()['text']}\n"


def test_generate_reads_line_ends_of_stop_strings_as_the_server_does(trained_root, capsys):
    command = ["generate", "--store", str(trained_root), "--prompt", "the ", "--length", "300"]
    texts = []
    for stop in ("\n", "\r\n", "\ufeff\n"):
        assert main([*command, "--stop", stop]) == 0
        captured = capsys.readouterr()
        assert captured.err.endswith("ended by stop\n")
        texts.append(captured.out)
    assert len(set(texts)) == 1


def test_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"charloom \d+\.\d+\S*\n", capsys.readouterr().out)


def test_help_of_train_lists_options_for_beginners_first(capsys):
    assert main(["train", "--help"]) == 0
    lines = capsys.readouterr().out
    places = [lines.index(word) for word in ("--minutes", "--preset", "--name", "Details of", "--hidden")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "command", ["runs", "runs list", "report", "train none.txt", "generate", "gradcheck"]
)
def test_unknown_variable_is_reported_by_every_command(folder: Path, monkeypatch, capsys, command: str):
    monkeypatch.setenv("CHARLOOM_CHECKPOINTS", "/data")
    main([*command.split(), *(["--hidden", "4", "--elements", "1"] if command == "gradcheck" else [])])
    said = capsys.readouterr().err
    assert said.startswith("charloom: warning: CHARLOOM_CHECKPOINTS is not a setting and is ignored")
    assert said.count("CHARLOOM_CHECKPOINTS") == 1
