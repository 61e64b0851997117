"""Output of commands works in every terminal, and foreign text in it cannot control the terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli import main
from app.logs import without_controls
from app.store.run_store import RunStore
from app.streams import visible
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
        "doctor --port 0",
    ):
        done = charloom(tmp_path, environment, *command.split())
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
        assert done.stdout


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


def test_control_characters_are_escaped():
    assert visible("a\tb\nc") == "a\tb\nc"
    assert visible("\x1b[2J\x9b\x7f\u202e\udce9\r") == r"\x1b[2J\x9b\x7f\u202e\udce9\r"


def test_path_with_line_ends_is_one_line_of_the_log():
    event = without_controls(
        None, "info", {"event": "GET /\x1b[31m\nforged", "exception": "a\nb", "status": 200}
    )
    assert event == {"event": r"GET /\x1b[31m\nforged", "exception": "a\nb", "status": 200}
