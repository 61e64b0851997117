"""Stores of earlier formats, written by the versions of that time, are served and trained to their end."""

import json
import shutil
from pathlib import Path

import pytest

from app.store.records import FORMAT
from app.store.run_store import RunStore
from model.checkpoint import VERSION, load
from model.generation import generate
from model.sampling import SamplingConfig
from tests.support.runs import stop, wait_until, worker_process
from tests.support.stores import refreshed

GOLDEN = Path(__file__).parents[1] / "golden"
FORMATS = sorted(GOLDEN.iterdir())


@pytest.fixture(params=FORMATS, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[RunStore, dict[str, dict[str, object]]]:
    """A copy of a store of an earlier format, and the texts that its checkpoints wrote then."""
    shutil.copytree(request.param / "checkpoints", tmp_path / "checkpoints")
    expected = json.loads((request.param / "expected.json").read_text(encoding="utf-8"))
    return RunStore(tmp_path / "checkpoints"), expected


def test_every_format_has_a_golden_store():
    assert [path.name for path in FORMATS] == [f"format-{n}" for n in range(1, max(FORMAT, VERSION) + 1)]


def test_checkpoint_of_an_earlier_format_writes_the_same_text(golden):
    store, expected = golden
    for name, then in expected.items():
        checkpoint = load(store.get(name).checkpoint_path(then["step"]))
        for kind, temperature in (("greedy", 0), ("seed 1", 1)):
            sampling = SamplingConfig(temperature=temperature)
            text = generate(checkpoint.network(), checkpoint.vocabulary, "the ", 60, sampling, 1).text
            assert text == then[kind], (name, kind)


def test_store_of_an_earlier_format_is_served_and_listed(golden, serving):
    store, expected = golden
    assert refreshed(store).current.id in {f"{name}@{then['step']}" for name, then in expected.items()}
    client = serving(store.root)
    for name, then in expected.items():
        body = {"prompt": "the ", "length": 60, "seed": 1, "model": name}
        assert client.post("/generate", json=body).json()["text"] == then["seed 1"]
        assert client.get("/loss-curve", params={"model": name, "format": "json"}).status_code == 200
    assert len(client.get("/runs").json()["runs"]) == len(expected)


@pytest.mark.slow
def test_stopped_run_of_an_earlier_format_resumes_and_finishes(golden):
    store, expected = golden
    unfinished = [run for run in store.list() if run.status.state == "queued"]
    assert unfinished
    with worker_process(store) as worker:
        wait_until(lambda: all(run.status.state == "finished" for run in store.list()), "all are finished")
        code, log = stop(worker)
    assert code == 0, log
    for run in unfinished:
        latest = run.latest()
        assert latest is not None
        assert latest.newest.step == run.config.steps > expected[run.name]["step"]
        assert [point["step"] for point in run.history()] == list(range(0, run.config.steps + 1, 5))
