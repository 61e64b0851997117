"""Runs with a fault in their directory: the fault is reported for that run, and no list fails."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.cli import main
from app.store.run_store import RunStore
from tests.support.crafted import LISTS, OF_THE_RUN, PICTURES, ask_every_command, checked, look_at
from tests.support.servers import application

FILES = (
    "samples.jsonl",
    "history.jsonl",
    "latest.json",
    "status.json",
    "control.json",
    "run.json",
    "baselines.json",
    "corpus.txt",
    "step-000000060.safetensors",
)


def as_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def as_link(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/etc/passwd")


def as_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def as_content(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def as_changed(**changes: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | changes))


KINDS = {
    "folder": as_folder,
    "link": as_link,
    "pipe": as_pipe,
    "empty": as_content(b""),
    "other JSON": as_content(b'[]\n{}\n{"loss": 1.0}\nnull\n7\n{"step": "x"}\n'),
    "deep JSON": as_content(b"[" * 50_000 + b"\n"),
    "bytes": as_content(bytes(range(256)) * 9),
}
CHANGES = {
    ("run.json", "no characters"): as_changed(characters=0),
    ("run.json", "one character"): as_changed(characters=1),
    ("run.json", "created"): as_changed(created=1.797e308),
    ("run.json", "a long name"): as_changed(corpus_name="x" * 100_000),
    ("status.json", "infinity"): as_content(b'{"state": "training", "loss": Infinity}'),
    ("status.json", "400 digits"): as_content(b'{"state": "training", "step": %s}' % (b"9" * 400)),
    ("latest.json", "a time"): as_changed(
        newest={"file": "step-000000060.safetensors", "step": 60, "digest": "", "time": 1e300}
    ),
}
CASES = {(file, kind): make for file in FILES for kind, make in KINDS.items()} | CHANGES


@pytest.fixture(scope="module")
def server(trained_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    root = tmp_path_factory.mktemp("bad-runs") / "checkpoints"
    shutil.copytree(trained_root, root)
    with application(root) as client:
        client.root = root
        yield client


@pytest.fixture
def bad(server: httpx.Client) -> Iterator[Path]:
    path = server.root / "bad"
    shutil.copytree(server.root / "classic", path)
    as_changed(name="bad", created=time.time())(path / "run.json")
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize(("file", "kind"), CASES, ids=lambda value: value)
def test_bad_file_affects_only_its_run(server, bad: Path, file: str, kind: str):
    CASES[file, kind](bad / file)
    for path in LISTS:
        assert str(server.root) not in str(checked(server.get(path), path)), path
    names = {run["name"] for run in server.get("/runs").json()["runs"]}
    assert {"classic", "gru"} <= names
    for path in (*OF_THE_RUN, *PICTURES):
        assert str(server.root) not in look_at(server, path.format("bad"), kind), path


def test_unusable_file_is_reported_as_a_warning_of_its_run(server, bad: Path):
    as_folder(bad / "samples.jsonl")
    as_content(b"{}")(bad / "latest.json")
    shown = server.get("/runs/bad").json()
    assert shown["samples"] == 0
    assert shown["warnings"][0] == "samples.jsonl is not a regular file and is ignored: remove it"
    assert shown["warnings"][1].startswith("bad/latest.json is damaged or was not written by Charloom")


def test_bad_line_is_the_only_one_skipped(server, bad: Path):
    for name, record in (("history.jsonl", {"loss": 1.0}), ("samples.jsonl", {"step": 3, "text": 5})):
        path = bad / name
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([lines[0], json.dumps(record).encode() + b"\n", *lines[1:]]))
    good = server.get("/loss-curve.json?model=classic").json()["points"]
    assert server.get("/loss-curve.json?model=bad").json()["points"] == good
    good = server.get("/samples?model=classic").json()["samples"]
    assert server.get("/samples?model=bad").json()["samples"] == good


def test_run_that_cannot_be_described_is_left_out_of_the_list(server, monkeypatch, caplog):
    from app.api.native import run_info

    original = run_info.describe

    def fail(services: object, run: object) -> object:
        if run.name == "gru":
            raise ZeroDivisionError
        return original(services, run)

    monkeypatch.setattr(run_info, "describe", fail)
    assert [run["name"] for run in server.get("/runs").json()["runs"]] == ["classic"]
    assert "run gru cannot be described" in caplog.text


def test_samples_are_counted_without_being_parsed(trained: RunStore, monkeypatch):
    monkeypatch.setattr("app.store.history.Lines.parse", None)
    assert trained.get("classic").files().samples == 5


@pytest.mark.slow
def test_bad_files_break_no_command(trained: RunStore, serving, monkeypatch, capsys):
    names = {}
    for number, ((file, kind), make) in enumerate(CASES.items()):
        path = trained.root / f"bad-{number}"
        shutil.copytree(trained.root / "classic", path)
        as_changed(name=path.name)(path / "run.json")
        make(path / file)
        names[path.name] = (file, kind)
    monkeypatch.setenv("CHARLOOM_URL", str(serving(trained.root).base_url))
    monkeypatch.setenv("CHARLOOM_STORE", str(trained.root))
    ask_every_command(trained.root, names)
    assert main(["generate", "--length", "5"]) == 0
    assert str(trained.root) not in capsys.readouterr().out
