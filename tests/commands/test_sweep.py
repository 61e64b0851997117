"""`charloom sweep`: unpromising trials end early, the best run is kept, a killed sweep continues."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from app.cli import main
from app.commands import sweep
from app.commands.search_space import search_space
from app.commands.sweep import FIRST_RUNG, Search, Sweep
from app.store.run_store import RunStore
from model.errors import CharloomError, ConfigError
from tests.support.runs import LONGEST_WAIT, small_text, wait_until, worker_process
from tests.support.settings import without_settings

SETTINGS = {"preset": "gru", "hidden": 8, "embedding": 0, "streams": 4, "shards": 1, "steps": 60}
QUIET = {"validate-every": 5, "sample-every": 0, "best-sample-length": 0, "record-every": 5}
SMALL = [f"--{name}={value}" for name, value in (SETTINGS | QUIET).items()]
RATES = "--set=learning_rate=1e-6,6e-3"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    monkeypatch.chdir(tmp_path)
    without_settings(monkeypatch)
    monkeypatch.setattr(sweep, "LOOK_SECONDS", 0.1)
    (tmp_path / "my.txt").write_text(small_text(4000), "utf-8")
    return RunStore("checkpoints")


def names(store: RunStore) -> list[str]:
    return sorted(run.name for run in store.list())


class FakeServer:
    """A server whose runs make a measurement at each poll; the loss of a run is its hidden size."""

    LENGTH = 12  # measurements of a run
    EVERY = 5

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.deleted: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path.removeprefix("/runs/")
        if request.method == "POST":
            given = dict(request.url.params)
            assert given["name"] not in self.runs
            settings = {"hidden": int(given["hidden"]), "validate_every": self.EVERY}
            state = {"state": "training", "corpus": "my.txt", "preset": "gru", "settings": settings}
            self.runs[given["name"]] = state | {"name": given["name"], "measured": 0}
            return httpx.Response(202, json={})
        if request.method == "PATCH":
            self.runs[name]["state"] = "stopped"
        if request.method == "DELETE":
            self.deleted.append(name)
            del self.runs[name]
            return httpx.Response(200, json={})
        if request.url.path == "/runs":
            return httpx.Response(200, json={"runs": list(self.runs.values())})
        if request.url.path == "/loss-curve.json":
            run = self.runs[request.url.params["model"]]
            if run["state"] == "training":
                run["measured"] += 1
                run["state"] = "finished" if run["measured"] == self.LENGTH else "training"
            loss = run["settings"]["hidden"] + 1.0
            steps = [self.EVERY * number for number in range(1, run["measured"] + 1)]
            points = [{"step": step, "validation_loss": loss + 1 / step} for step in steps]
            return httpx.Response(200, json={"points": [*points, {"step": 99, "validation_loss": None}]})
        return httpx.Response(200, json=self.runs[name])

    def search(self, asked: Sweep) -> Search:
        client = httpx.Client(transport=httpx.MockTransport(self.answer), base_url="http://server")
        return Search(asked, search_space(asked.tried), client)


def asked(trials: int, keep_all: bool = False, parallel: int = 1) -> Sweep:
    return Sweep(Path("my.txt"), None, trials, parallel, {}, ("hidden=1..100",), keep_all, Path("a.png"))


def test_unpromising_trials_end_early_at_the_same_step(store, capsys):
    server = FakeServer()
    search = server.search(asked(12))
    search.run()
    measured = {run["settings"]["hidden"]: (run["state"], run["measured"]) for run in server.runs.values()}
    stopped = [number for state, number in measured.values() if state == "stopped"]
    # at the first rung; the next would be after 12 measurements, at the end
    assert set(stopped) == {FIRST_RUNG}
    assert measured[min(measured)][0] == "finished"
    search.finish()
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    (best,) = server.runs
    assert server.runs[best]["settings"]["hidden"] == min(measured)
    assert len(server.deleted) == 11
    assert f"The best is {best}, with hidden {min(measured)}" in capsys.readouterr().out


def test_restarted_sweep_continues_with_its_existing_runs(store, capsys):
    server = FakeServer()
    first = server.search(asked(3, parallel=3))
    first._start()
    first._follow(first._start())
    last = first._start()
    for _ in range(FakeServer.LENGTH):
        first._follow(last)
    before = {name: dict(run["settings"]) for name, run in server.runs.items()}
    again = server.search(asked(5, keep_all=True, parallel=2))
    again.find_earlier()
    again.run()
    again.finish()
    assert "continuing with 3 existing runs" in capsys.readouterr().out
    assert sorted(server.runs) == [f"my-trial-{number}" for number in range(1, 6)]
    assert {name: server.runs[name]["settings"] for name in before} == before
    assert {run["state"] for run in server.runs.values()} <= {"finished", "stopped"}
    assert len(again.study.trials) == 5
    assert {trial.state.name for trial in again.study.trials} <= {"COMPLETE", "PRUNED"}
    assert server.deleted == []


@pytest.mark.slow
def test_killed_sweep_continues_with_its_runs(store):
    command = [sys.executable, "-P", "-m", "app.cli", "sweep", "my.txt", "--trials", "3", *SMALL]
    command = [one.replace("steps=60", "steps=3000") for one in command]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            wait_until(lambda: store.list() and store.list()[0].status.step > 50, "a trial trains")
        finally:
            process.kill()
            process.wait(LONGEST_WAIT)
    wait_until(lambda: store.list()[0].status.state != "training", "the worker ends with its parent")
    begun = store.list()[0]
    spec, step = begun.spec, begun.status.step
    assert 0 < step < 3000
    done = subprocess.run([*command, "--keep-all"], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "continuing with 1 existing run\n" in done.stdout
    assert names(store) == ["my-trial-1", "my-trial-2", "my-trial-3"]
    assert store.get("my-trial-1").spec == spec
    assert store.get("my-trial-1").standing.state == "finished"


@pytest.mark.slow
def test_sweep_through_a_server_uses_its_workers(
    store: RunStore, serving: Callable[..., httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.root.mkdir()
    client = serving(store.root, api_keys="ann:secret:admin")
    monkeypatch.setenv("CHARLOOM_API_KEY", "secret")
    url = ["--url", str(client.base_url)]
    with worker_process(store):
        assert main(["sweep", "my.txt", "--trials", "2", "--parallel", "2", *SMALL, RATES, *url]) == 0
    (kept,) = store.list()
    assert kept.standing.state == "finished"


def test_ranges_and_choices_become_distributions():
    space = search_space(["hidden=64..256", "learning_rate=1e-3..1e-2", "cell=gru,lstm", "warmup=0.1..0.2"])
    assert (space["hidden"].low, space["hidden"].high, space["hidden"].log) == (64, 256, False)
    assert (space["learning_rate"].low, space["learning_rate"].log) == (1e-3, True)
    assert space["cell"].choices == ("gru", "lstm")
    assert space["warmup"].log is False
    assert set(search_space([])) == {"learning_rate", "weight_decay"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["colour=red"],
            "set must be FIELD=A,B,C or FIELD=LOW..HIGH, for a field to try. Given: 'colour=red'",
        ),
        (["steps=1,2"], "for a field to try. Given: 'steps=1,2'"),
        (["hidden"], "Given: 'hidden'"),
        (["hidden=0,8"], "hidden must be between 1 and 4096. Given: 0"),
        (["hidden=8,x"], "hidden must be of type int. Given: 'x'"),
        (["hidden=9..8"], "hidden needs a range whose start is below its end. Given: 9..8"),
        (["cell=gru..lstm"], "cell is a word, so it has no range"),
        (["hidden=8", "hidden=9"], "set has hidden twice"),
    ],
)
def test_invalid_search_space_is_refused_with_the_reason(given: list[str], message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        search_space(given)


@pytest.mark.slow
def test_runs_of_another_sweep_are_refused(store, capsys):
    assert main(["sweep", "my.txt", "--trials", "1", *SMALL, RATES]) == 0
    assert main(["sweep", "my.txt", "--trials", "2", *SMALL, "--set=learning_rate=0.5,1"]) == 2
    assert "my-trial-1 has learning_rate" in capsys.readouterr().err
    Path("other.txt").write_text(small_text(3000), "utf-8")
    assert main(["sweep", "other.txt", "--name", "my", "--trials", "2", *SMALL, RATES]) == 2
    assert "my-trial-1 was trained on another text, my.txt: choose another --name" in capsys.readouterr().err


def test_sweep_without_its_extra_names_what_to_install(store, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("optuna", "app.commands.sweep"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["sweep", "my.txt"]) == 2
    assert "pip install 'charloom[sweep]'" in capsys.readouterr().err


def test_server_and_store_are_chosen_as_by_other_commands(store, monkeypatch, capsys):
    reached = []

    def connected(url: str | None, folder: Path | None) -> NoReturn:
        reached.append((url, folder))
        raise CharloomError("not tried")

    monkeypatch.setattr(sweep, "connected", connected)
    assert main(["sweep", "my.txt", "--url", "http://a:1", "--store", "here"]) == 2
    assert "give --url or --store, not both" in capsys.readouterr().err
    monkeypatch.setenv("CHARLOOM_URL", "http://b:2")
    assert main(["sweep", "my.txt", "--store", "here"]) == 2
    monkeypatch.setenv("CHARLOOM_URL", "")
    assert main(["sweep", "my.txt"]) == 2
    assert reached == [(None, Path("here")), (None, None)]
