"""Model names: `run`, `run@step` and `run@best`."""

import pytest

from app.errors import ModelNotFoundError, NotReadyError
from app.store.checkpoints import find_checkpoint, parse_model_name
from app.store.run_store import RunStore


@pytest.mark.parametrize(
    ("name", "run", "at"),
    [("gru", "gru", None), ("gru@20", "gru", "20"), ("gru@best", "gru", "best"), ("@3", "", "3")],
)
def test_model_name_is_parsed_into_run_and_step(name, run, at):
    assert parse_model_name(name) == (run, at)


@pytest.mark.parametrize(
    "name", ["gru@", "gru@-1", "gru@1.5", "gru@newest", "a@1@2", "gru@" + "9" * 13, "gru@1\n"]
)
def test_invalid_model_name_is_refused(name):
    with pytest.raises(ModelNotFoundError, match="give a run, run@step or run@best"):
        parse_model_name(name)


def test_newest_step_and_best_are_found_with_their_digests(trained: RunStore):
    run = trained.get("gru")
    latest = run.latest()
    assert latest is not None
    assert latest.best is not None
    newest, best = find_checkpoint(run), find_checkpoint(run, "best")
    assert (newest.step, newest.path.name, newest.digest) == (60, latest.newest.file, latest.newest.digest)
    assert (best.step, best.path.name, best.digest) == (
        latest.best.step,
        latest.best.file,
        latest.best.digest,
    )
    for at in (20, "20"):
        assert find_checkpoint(run, at)[:2] == (20, run.checkpoint_path(20))
    run.checkpoint_path(latest.best.step).unlink(missing_ok=True)
    assert find_checkpoint(run, latest.best.step) == best


@pytest.mark.parametrize("at", ["19", "-1", "x", "1.0", 10**30, True])
def test_missing_step_is_refused_with_the_existing_steps(trained: RunStore, at):
    with pytest.raises(ModelNotFoundError, match=r"no checkpoint .*; it has the steps 0, 20, .* best is"):
        find_checkpoint(trained.get("gru"), at)


def test_missing_latest_json_falls_back_to_the_files(trained: RunStore):
    run = trained.get("gru")
    (run.path / "latest.json").unlink()
    assert find_checkpoint(run)[:2] == (60, run.checkpoint_path(60))
    for path in run.checkpoints().values():
        path.unlink()
    with pytest.raises(NotReadyError, match="run 'gru' has no checkpoint yet: it is finished"):
        find_checkpoint(run)
