"""Output of commands works in every terminal, and foreign text in it cannot control the terminal."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from rich.console import Console

from app.cli import main
from app.commands.narration import line_of
from app.commands.narration import say as narration_say
from app.commands.progress import LineDisplay, LiveDisplay
from app.healthcheck import main as healthcheck_main
from app.intake.findings import Finding
from app.logs import without_controls
from app.store.run_store import RunStore
from app.streams import visible
from app.worker import main as worker_main
from model.errors import CharloomError
from tests.support.runs import classic_like, small_text

SMALL = "--preset gru --hidden 8 --embedding 0 --streams 4 --shards 1 --steps 20 --sample-every 10"
HOSTILE = "[/b] \x1b]52;c;ZXZpbA==\x07\x9b2J \u202etxt.exe"
NARROW = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "cp1252"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


def charloom(
    folder: Path, environment: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[bytes]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CHARLOOM_", "LC_"))}
    command = [sys.executable, "-P", "-m", "app.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=clean | environment, capture_output=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("environment", NARROW, ids=["ascii", "cp1252", "C"])
def test_command_works_in_a_terminal_with_a_limited_encoding(tmp_path: Path, environment: dict[str, str]):
    (tmp_path / "text.txt").write_text("é—ж\nmore of it\n" * 600, "utf-8")
    done = charloom(tmp_path, environment, "train", "text.txt", *SMALL.split())
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"finished" in done.stdout
    for command in (
        "generate --length 30 --seed 1",
        "runs",
        "runs show text",
        "runs watch text",
        "runs add text.txt --name other",
        "gradcheck --hidden 4 --elements 2",
        "doctor --port 0",
    ):
        done = charloom(tmp_path, environment, *command.split())
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
        assert done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("environment", NARROW, ids=["ascii", "cp1252", "C"])
def test_planned_training_survives_a_terminal_that_lacks_a_character(
    tmp_path: Path, environment: dict[str, str]
):
    (tmp_path / "text.txt").write_text("é—ж\nmore of it\n" * 600, "utf-8")
    done = charloom(tmp_path, environment, "train", "text.txt", "--minutes", "0.02", "--hidden", "8")
    assert (done.returncode, done.stderr) == (0, b"")
    assert RunStore(tmp_path / "checkpoints").get("text").status.state == "finished"


EXPLODING = "--preset gru --hidden 16 --streams 2 --sequence-length 10 --checkpoint-every 10 --clip none"
WARNED = f"{EXPLODING} --learning-rate 10 --steps 200 --validate-every 50 --weight-decay 0.3"


@pytest.mark.slow
@pytest.mark.parametrize("output", ["full disk", "closed pipe"])
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_training_survives_an_output_that_cannot_be_written(tmp_path: Path, output: str, unbuffered: str):
    """From the first line on, and with a warning of the training among the lines."""
    (tmp_path / "text.txt").write_text(small_text(), "utf-8")
    if output == "full disk":
        stdout = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, stdout = os.pipe()
        os.close(reading)
    command = [sys.executable, "-P", "-m", "app.cli", "train", "text.txt", *WARNED.split()]
    try:
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=stdout, stderr=subprocess.PIPE, timeout=120
        )
    finally:
        os.close(stdout)
    status = RunStore(tmp_path / "checkpoints").get("text").status
    assert (done.returncode, done.stderr, status.state) == (0, b"", "finished")
    assert status.warnings


@pytest.mark.slow
def test_training_continues_after_its_output_pipe_is_closed(tmp_path: Path):
    (tmp_path / "text.txt").write_text(small_text(), "utf-8")
    command = [sys.executable, "-P", "-m", "app.cli", "train", "text.txt", *SMALL.split()]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert any(line.startswith(b"run text in") for line in process.stdout)
        process.stdout.close()
        process.stdout = None
        process.communicate(timeout=120)
    assert RunStore(tmp_path / "checkpoints").get("text").status.state == "finished"


@pytest.mark.slow
def test_foreign_names_and_samples_do_not_control_the_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    RunStore("checkpoints").create("mine", classic_like(), small_text(), HOSTILE)
    for command in (["runs"], ["runs", "show", "mine"], ["train", "no \x1b[2J such file"]):
        main(command)
    output = capsys.readouterr()
    for text in (output.out, output.err):
        assert not set(text) & set("\x1b\x07\x9b\u202e"), text
    assert "mine" in output.out


def test_errors_outside_the_commands_do_not_control_the_terminal(monkeypatch, capsys):
    def fail() -> NoReturn:
        raise CharloomError(HOSTILE)

    monkeypatch.setattr(logging, "lastResort", logging.StreamHandler())
    monkeypatch.setattr("app.worker.load_settings", fail)
    monkeypatch.setattr("app.healthcheck.server_fault", lambda url: HOSTILE)
    assert (worker_main(), healthcheck_main(["server", "http://127.0.0.1"])) == (2, 1)
    assert capsys.readouterr().err == f"charloom worker: {visible(HOSTILE)}\n{visible(HOSTILE)}\n"
    assert logging.lastResort.format(logging.makeLogRecord({"msg": HOSTILE})) == visible(HOSTILE)


def test_control_characters_are_escaped():
    assert visible("a\tb\nc") == "a\tb\nc"
    assert visible("\x1b[2J\x9b\x7f\u202e\udce9\r") == r"\x1b[2J\x9b\x7f\u202e\udce9\r"


def test_path_with_line_ends_is_one_line_of_the_log():
    event = without_controls(
        None, "info", {"event": "GET /\x1b[31m\nforged", "exception": "a\nb", "status": 200}
    )
    assert event == {"event": r"GET /\x1b[31m\nforged", "exception": "a\nb", "status": 200}


@pytest.mark.slow
def test_samples_do_not_control_the_terminal(trained, monkeypatch, capsys):
    run, store = trained.get("gru"), ["--store", str(trained.root)]
    console = Console(width=400)
    lines = LineDisplay(run, console)
    hostile = "the [/b] \x1b[2J\x9b\x07 cat"
    with run.samples_path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 60, "kind": "sample", "text": hostile}) + "\n")
    status = run.status.model_copy(update={"state": "failed", "reason": hostile})
    lines.show(status)
    console.print(LiveDisplay(run, console).picture(status))
    narration_say(line_of(run, status))
    assert main(["runs", "watch", "gru", *store]) == 0
    monkeypatch.setattr(
        "app.commands.generate.generate_text",
        lambda *_: SimpleNamespace(text=hostile, finish_reason="length"),
    )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(["generate", "--length", "5", *store]) == 0
    said = capsys.readouterr()
    assert (said.out.count(r"the [/b] \x1b[2J"), said.err.count(r"the [/b] \x1b[2J")) == (6, 2)
    assert not set(said.out + said.err) & set("\x1b\x07\x9b")


def test_findings_and_warnings_do_not_control_the_terminal(tmp_path, monkeypatch, capsys):
    findings = [Finding("warning", "code", HOSTILE)]
    monkeypatch.setattr("app.commands.train.read_text", lambda *_: (small_text(), findings))
    monkeypatch.setattr("app.commands.train.follow", lambda *_: logging.getLogger("x").warning(HOSTILE))
    main(["train", "text.txt", "--store", str(tmp_path / HOSTILE), *SMALL.split()])
    output = capsys.readouterr().out
    assert output.count(r"[/b] \x1b]52") == 3
    assert not set(output) & set("\x1b\x07\x9b\u202e")


def test_text_for_a_pipe_is_printed_unchanged(trained, monkeypatch, capsys):
    hostile = SimpleNamespace(text="the \x1b[2J cat", finish_reason="length")
    monkeypatch.setattr("app.commands.generate.generate_text", lambda *_: hostile)
    assert main(["generate", "--store", str(trained.root), "--length", "200"]) == 0
    assert capsys.readouterr().out == "the \x1b[2J cat\n"


def test_run_with_control_characters_is_shown_as_valid_json(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = f"{HOSTILE} \x85\x7f\u200f \u00e9"
    RunStore("checkpoints").create("mine", classic_like(), small_text(), name)
    assert main(["runs", "show", "mine"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["corpus"] == name
    assert not set(shown) & set("\x1b\x07\x9b\u202e\x85\x7f\u200f")
    assert "é" in shown
