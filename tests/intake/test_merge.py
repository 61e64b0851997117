"""Runs of the same shape are merged into one run that averages them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.intake.archive import export, import_run
from app.intake.merge import merge_runs
from app.intake.new_runs import fork
from app.store.run import Run
from app.store.run_store import RunStore
from app.store.space import Budget, Limits
from app.training.trainer import train_run
from app.training.worker import Worker
from model.batches import split
from model.checkpoint import Checkpoint, load
from model.config import RunConfig
from model.errors import CharloomError
from model.evaluation import streaming_loss
from tests.support.runs import classic_like, gru_like, small_text

TEXT = small_text(3000)
QUIET = {"sample_every": 0, "best_sample_length": 0, "steps": 20, "embedding": 5}


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "checkpoints")


@pytest.fixture
def limits(store: RunStore) -> Limits:
    return Limits(10**6, 100, Budget(store, 0))


def trained(store: RunStore, name: str, config: RunConfig, text: str = TEXT) -> Run:
    run = store.create(name, config, text, "a.txt")
    train_run(run, lambda: False)
    return run


def newest(run: Run) -> Checkpoint:
    latest = run.latest()
    assert latest is not None
    return load(run.path / latest.newest.file)


def test_merged_run_has_the_mean_logits_of_all_members(store, limits):
    one = trained(store, "one", gru_like(**QUIET))
    pair = trained(store, "pair", gru_like(**QUIET, members=2, seed=3))
    merged = newest(merge_runs(store, ["one", "pair"], "both", limits))
    assert merged.config == gru_like(**QUIET, members=3)
    ids = merged.vocabulary.encode(TEXT[:80]).reshape(4, 20).T
    single, double = newest(one).network(), newest(pair).network()
    means = [network.forward(ids, network.zero_state(4))[0] for network in (single, double)]
    logits, _ = merged.network().forward(ids, merged.network().zero_state(4))
    np.testing.assert_allclose(logits, (means[0] + 2 * means[1]) / 3, rtol=1e-4, atol=1e-5)


def test_merged_run_is_finished_and_served_by_default(store, limits):
    for name, seed in (("a", 1), ("b", 2)):
        trained(store, name, gru_like(**QUIET, seed=seed))
    run = merge_runs(store, ["a@20", "b"], None, limits)
    assert (run.name, run.standing.state, run.spec.parts) == ("a-merged", "finished", ["a@20", "b@20"])
    assert run.text() == TEXT
    assert run.latest().newest.time > max(store.get(name).latest().newest.time for name in "ab")
    checkpoint = newest(run)
    _, held_out = split(checkpoint.vocabulary.encode(TEXT), 0.1)
    loss = streaming_loss(checkpoint.network(), held_out)
    assert run.status.validation_loss == pytest.approx(loss, rel=1e-6)
    assert run.latest().best.loss == run.status.validation_loss
    assert run.history()[-1]["validation_loss"] == run.status.validation_loss


def test_merged_run_can_be_forked_and_exported(store, limits, tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        trained(store, name, gru_like(**QUIET, seed=seed))
    run = merge_runs(store, ["a", "b"], "m", limits)
    made = fork(store, "m", {"steps": 5}, [], limits).run
    train_run(made, lambda: False)
    assert made.status.state == "finished"
    export(run, None, True, tmp_path / "m.zip")
    other = RunStore(tmp_path / "other")
    with (tmp_path / "m.zip").open("rb") as file:
        again = import_run(other, {}, file, Limits(10**6, 100, Budget(other, 0)))
    assert newest(again).parameters.tobytes() == newest(run).parameters.tobytes()


def test_merged_run_without_held_out_text_has_no_held_out_loss(store, limits):
    for name, seed in (("a", 1), ("b", 2)):
        trained(store, name, classic_like(seed=seed, steps=20))
    run = merge_runs(store, ["a", "b"], "m", limits)
    assert run.status.validation_loss is None
    assert run.status.smooth_loss == pytest.approx(
        np.mean([store.get(name).status.smooth_loss for name in "ab"]), abs=1e-12
    )


@pytest.mark.parametrize(
    ("models", "config", "text", "message"),
    [
        (["a", "b"], {"hidden": 10}, TEXT, "hidden is 12 in 'a@20' and 10 in 'b@20'"),
        (["a", "b"], {"cell": "lstm"}, TEXT, "cell is 'gru' in 'a@20' and 'lstm' in 'b@20'"),
        (["a", "b"], {}, TEXT + "Q", "only one of 'a@20' and 'b@20' knows 'Q'"),
        (["a", "b"], {"members": 16}, TEXT, "members must be between 1 and 16. Given: 17"),
        (["a", "a@20"], {}, TEXT, "models must differ. Given more than once: a@20"),
        (["a"], {}, TEXT, "models must be at least 2. Given: 1"),
        (["a", "c"], {}, TEXT, "no run named 'c'"),
        (["a", "b@7777"], {}, TEXT, "has no checkpoint 7777"),
        (
            ["a", "b@best"],
            {"members": 2},
            TEXT,
            "has none, because it is a best checkpoint of several members",
        ),
    ],
)
def test_models_that_cannot_be_merged_are_refused(store, limits, models, config, text, message):
    trained(store, "a", gru_like(**QUIET))
    trained(store, "b", gru_like(**QUIET | config), text)
    with pytest.raises(CharloomError, match=re.escape(message)):
        merge_runs(store, models, "m", limits)
    assert {path.name for path in store.root.iterdir() if path.name[0] != "."} == {"a", "b"}


def test_run_merged_over_http_is_served_like_any_other(
    store: RunStore, serving: Callable[..., httpx.Client]
) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        store.create(name, gru_like(**QUIET, seed=seed), TEXT, "a.txt")
    worker = Worker(store, lambda: False)
    while (run := worker.next_run()) is not None:
        worker.train(run)
    api = serving(store.root)

    def merge(**body: Any) -> httpx.Response:
        return api.post("/runs/merge", json=body)

    made = merge(models=["a", "b"], name="both")
    assert (made.status_code, made.headers["location"]) == (201, "/runs/both")
    assert (made.json()["parts"], made.json()["members"]) == (["a@20", "b@20"], 2)
    text = api.post("/generate", json={"model": "both", "length": 20, "seed": 4}).json()
    assert (text["model"], len(text["text"])) == ("both@20", 20)
    assert api.get("/report", params={"model": "both"}).status_code == 200
    assert api.get("/loss-curve.json", params={"model": "both"}).json()["best"][0] == 20
    assert merge(models=["a", "b"], name="both").json()["error"]["code"] == "run_exists"
    assert merge(models=["a", "c"]).status_code == 404
    assert merge(models=["a"]).status_code == 422
    assert merge(models=["a", "b"], name="../x").status_code == 422
