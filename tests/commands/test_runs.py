"""`charloom runs …`: the same commands on the local store and through a server."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import httpx
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from app.cli import main
from app.commands.client import RefusedError, connected, merge
from app.commands.runs import app
from app.store.records import Status
from app.store.run_store import RunStore
from app.training.worker import Worker
from model.config import PRESETS
from tests.support.runs import classic_like, small_text, stop, wait_until, worker_process
from tests.support.settings import without_settings

SMALL = "--preset gru --hidden 8 --embedding 0 --streams 4 --shards 1 --steps 40 --sample-every 20"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    monkeypatch.chdir(tmp_path)
    without_settings(monkeypatch)
    (tmp_path / "my text.txt").write_text(small_text(6000), "utf-8")
    return RunStore("checkpoints")


@pytest.fixture(params=["local", "url"])
def where(
    request: pytest.FixtureRequest,
    store: RunStore,
    serving: Callable[..., httpx.Client],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    store.root.mkdir()
    if request.param == "url":
        client = serving(store.root, api_keys="ann:secret:admin", watch_seconds=20)
        monkeypatch.setenv("CHARLOOM_URL", str(client.base_url))
        monkeypatch.setenv("CHARLOOM_API_KEY", "secret")
    return str(request.param)


def train_all(store: RunStore) -> None:
    worker = Worker(store, lambda: False)
    while (run := worker.next_run()) is not None:
        worker.train(run)


def runs(*arguments: str) -> int:
    return main(["runs", *arguments])


@pytest.mark.slow
def test_run_is_added_controlled_watched_forked_and_removed(where, store, capsys):
    assert runs() == 0
    assert "There are no runs" in capsys.readouterr().out
    assert runs("add", "my text.txt", "--name", "mine", *SMALL.split()) == 0
    output = capsys.readouterr().out
    assert "warning: the text has 6,000 characters, which the network will memorise" in output
    assert "run mine is queued: 6,000 characters" in output
    for action, state in (
        ("pause", "paused"),
        ("resume", "queued"),
        ("stop", "stopped"),
        ("resume", "queued"),
    ):
        assert runs(action, "mine") == 0
        assert capsys.readouterr().out == f"run mine is {state}\n"
    train_all(store)
    assert runs("list") == 0
    assert re.search(r"mine +finished +40 +40", capsys.readouterr().out)
    assert runs("show", "mine") == 0
    assert json.loads(capsys.readouterr().out)["step"] == 40
    assert runs("watch", "mine") == 0
    assert capsys.readouterr().out.endswith("mine is finished\n")
    assert runs("fork", "mine", "--step", "20", "--steps", "10", "--name", "more") == 0
    assert store.get("more").spec.parent == "mine@20"
    assert runs("rm", "more") == 0
    assert runs("rm", "mine") == 2
    assert "force" in capsys.readouterr().err
    assert runs("rm", "mine", "--force") == 0
    assert store.list() == []


@pytest.mark.slow
def test_exported_run_can_be_imported(where, store, capsys):
    runs("add", "my text.txt", "--name", "mine", *SMALL.split())
    train_all(store)
    assert runs("export", "mine") == 0
    assert "wrote mine-40.zip" in capsys.readouterr().out
    assert runs("export", "mine") == 2  # an existing file is not overwritten
    assert runs("import", "mine-40.zip", "--name", "again") == 0
    assert store.get("again").checkpoints().keys() == {40}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["show", "none"], "no run named 'none'"),
        (["pause", "../x"], "there is nothing at"),
        (["add", "missing.txt"], "missing.txt: No such file"),
        (["add", "my text.txt", "--hidden", "0"], "hidden must be between"),
        (["import", "my text.txt"], "not an exported run"),
    ],
)
def test_refusal_is_reported_in_one_line(where, store, capsys, arguments, part):
    assert runs(*arguments) == 2
    output = capsys.readouterr().err
    assert part in output
    assert output.count("\n") == 1


@pytest.mark.slow
def test_group_is_listed_as_one_line_in_place_of_its_members(where, store, capsys):
    assert runs("add", "my text.txt", "--name", "g", *SMALL.split(), "--members", "2", "--apart") == 0
    capsys.readouterr()

    def listed() -> str:
        assert runs("list") == 0
        return capsys.readouterr().out

    said = listed()
    assert re.search(r"\bg +queued +0 +40\b", said)
    assert "g.1" not in said
    assert "g: 0 of 2 members are finished\n" in said
    Worker(store, lambda: False).train(store.get("g.1"))
    assert "g: 1 of 2 members are finished\n" in listed()
    assert runs("show", "g") == 0
    assert json.loads(capsys.readouterr().out)["parts"] == ["g.1", "g.2"]
    shutil.rmtree(store.get("g").path)
    assert re.search(r"g\.1 +finished[^$]*g\.2 +queued", listed())


def test_time_left_is_by_the_clock_of_the_worker(store, capsys):
    run = store.create("mine", classic_like(steps=40), small_text(), "small.txt")
    run.write_status(Status(state="training", step=5, steps=40, heartbeat=1000.0, expected_end=1065.0))
    assert runs("list") == 0
    assert re.search(r"mine +interrupted +5 +40 +1:05\b", capsys.readouterr().out)


def test_merge_of_large_networks_is_waited_for():
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.extensions["timeout"]["read"] >= 600
        return httpx.Response(201, json={"name": "m", "members": 2, "validation_loss": None})

    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://store", timeout=60) as client:
        merge(client, ["a", "b"], "m")


def test_local_store_is_used_with_one_blas_thread(store):
    def threads() -> set[int]:
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    with threadpool_limits(2), connected(None, store.root):
        assert threads() == {1}


def test_missing_server_or_address_is_reported(store, capsys):
    assert runs("list", "--url", "http://127.0.0.1:9") == 2
    assert "no server answers at http://127.0.0.1:9" in capsys.readouterr().err
    assert runs("list", "--url", "nonsense") == 2
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.slow
def test_watch_shows_a_run_in_training(store, tmp_path):
    store.root.mkdir()
    runs("add", "my text.txt", "--name", "mine", *SMALL.split(), "--steps", "4000", "--record-every", "100")
    command = [sys.executable, "-P", "-m", "app.cli", "runs", "watch", "mine"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: "mine is queued" in watching.stdout.readline(), "the watcher has started")
        with worker_process(store) as worker:
            output, _ = watching.communicate(timeout=60)
            assert stop(worker)[0] == 0
    finally:
        watching.kill()
    assert watching.returncode == 0
    assert "mine is training" in output
    assert re.search(r"step +3,900 +loss \d", output)
    assert output.endswith("mine is finished\n")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["before", "after"])
def test_url_option_before_or_after_a_command_is_used(place, store, serving, tmp_path, capsys):
    add = ["add", "my text.txt", "--name", "mine", *SMALL.split()]
    client = serving(tmp_path / "remote")
    for options in ([], ["--url", str(client.base_url)]):
        assert runs(*(options + add if place == "before" else add + options)) == 0
    remove = ["rm", "mine", "--force"]
    options = ["--url", str(client.base_url)]
    assert runs(*(options + remove if place == "before" else remove + options)) == 0
    assert client.get("/runs").json()["runs"] == []
    assert [run.name for run in store.list()] == ["mine"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["list", "show mine", "pause mine", "rm mine --force"])
def test_store_option_before_a_command_is_used(command, store, capsys):
    assert runs("add", "my text.txt", "--name", "mine", *SMALL.split(), "--store", "elsewhere") == 0
    assert runs("--store", "elsewhere", *command.split()) == 0
    assert "mine" in capsys.readouterr().out


def test_option_after_the_command_overrides_the_one_before(store, serving, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHARLOOM_URL", "http://127.0.0.1:1")
    client = serving(tmp_path / "remote")
    assert runs("--store", "elsewhere", "list", "--url", str(client.base_url)) == 0
    assert runs("list", "--store", "elsewhere") == 0
    assert runs("list") == 2
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_url_together_with_a_store_is_refused(store, capsys):
    assert runs("--url", "http://127.0.0.1:1", "--store", "here", "list") == 2
    assert "give --url or --store, not both" in capsys.readouterr().err


@pytest.mark.slow
def test_merge_command_makes_one_run_of_two(where, store, capsys):
    for seed in "12":
        assert runs("add", "my text.txt", *SMALL.split(), "--seed", seed) == 0
    train_all(store)
    assert runs("merge", "my-text", "my-text-2@40", "--name", "both") == 0
    assert "run both is merged from 2 models: 2 members, held-out loss" in capsys.readouterr().out
    assert store.get("both").standing.state == "finished"
    assert runs("merge", "my-text", "none") == 2
    assert "no run named 'none'" in capsys.readouterr().err


def test_list_shows_the_held_out_loss_with_its_step(store, capsys):
    run = store.create("mine", PRESETS["gru"], small_text(), "small.txt")
    for step, shown in ((99, "4.5700 @0"), (0, "4.5700")):
        run.write_status(Status(state="stopped", step=step, validation_loss=4.57, validation_step=0))
        assert runs("list") == 0
        said = capsys.readouterr().out
        assert shown in said
        assert ("@0" in said) == (step > 0)


WORDS = {
    "list": [],
    "show": ["x"],
    "pause": ["x"],
    "resume": ["x"],
    "stop": ["x"],
    "rm": ["x", "--force"],
    "add": ["my text.txt"],
    "fork": ["x"],
    "merge": ["x", "y"],
    "export": ["x"],
    "import": ["my text.txt"],
    "watch": ["x"],
}


@pytest.mark.parametrize("option", [["--url", "http://a:1"], ["--store", "elsewhere"]], ids=["url", "store"])
@pytest.mark.parametrize("place", ["before", "after", "both"])
def test_every_command_takes_the_options_of_its_group(store, monkeypatch, option, place):
    assert set(WORDS) == {command.name or command.callback.__name__ for command in app.registered_commands}
    reached = []

    def connected(url: str | None, folder: Path | None) -> NoReturn:
        reached.append((url, folder))
        raise RefusedError("not tried")

    monkeypatch.setattr("app.commands.client.connected", connected)
    for name, arguments in WORDS.items():
        command = [name, *arguments]
        before = [option[0], "http://b:2" if option[0] == "--url" else "wrong"] if place == "both" else option
        assert (
            runs(*(command if place == "after" else before + command), *([] if place == "before" else option))
            == 2
        )
        expected = (option[1], None) if option[0] == "--url" else (None, Path(option[1]))
        assert reached.pop() == expected, name


def test_empty_url_option_is_refused_and_an_empty_variable_is_not_set(store, monkeypatch, capsys):
    monkeypatch.setenv("CHARLOOM_URL", "")
    assert runs("list") == 0
    assert "There are no runs" in capsys.readouterr().out
    for command in (["--url", "", "list"], ["list", "--url", ""], ["--url", "", "rm", "mine"]):
        assert runs(*command) == 2
        assert "--url is empty" in capsys.readouterr().err


def test_empty_store_option_counts_as_not_given(store, tmp_path, capsys):
    """An empty path is the current folder otherwise, whose files would be taken for runs."""
    assert runs("add", "my text.txt", "--name", "mine", *SMALL.split(), "--store", "") == 0
    assert [run.name for run in RunStore(tmp_path / "checkpoints").list()] == ["mine"]
    assert not (tmp_path / "mine").exists()


@pytest.mark.slow
def test_name_with_any_characters_is_not_another_path(where, store, capsys):
    assert runs("add", "my text.txt", "--name", "mine", *SMALL.split()) == 0
    for name in ("mine?force=true", "mine#", "mine/../mine", "n\udce9", "\x1b[2J", "%6dine", "a b"):
        for command in (["show"], ["rm"], ["stop"], ["export"], ["watch"], ["fork"]):
            capsys.readouterr()
            assert runs(*command, name) == 2, (command, name)
            said = capsys.readouterr().err
            assert (said.count("\n"), "\x1b" in said) == (1, False), said
    for command in (["merge", "n\udce9", "mine"], ["add", "my text.txt", "--name", "n\udce9"]):
        assert runs(*command) == 2
        assert "is not UTF-8" in capsys.readouterr().err
    assert [run.name for run in store.list()] == ["mine"]
    assert store.get("mine").standing.state == "queued"


def test_key_with_any_characters_is_sent(store, serving, tmp_path, monkeypatch, capsys):
    store.root.mkdir()
    client = serving(store.root, api_keys="ann:schlüssel,bob:hunter2")
    monkeypatch.setenv("CHARLOOM_API_KEY", "schlüssel")
    assert runs("list", "--url", str(client.base_url)) == 0
    monkeypatch.setenv("CHARLOOM_API_KEY", "schl\udcfcssel")
    assert runs("list", "--url", str(client.base_url)) == 2
    assert "this API key is unknown" in capsys.readouterr().err
