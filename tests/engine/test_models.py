"""Which checkpoint is served: the newest valid one of the run that trained last, or a named one."""

import json
import logging
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from app.engine import models as models_module
from app.engine.models import ModelStore
from app.errors import ModelNotFoundError, NotReadyError
from app.store.run import Run
from app.store.run_store import RunStore
from app.training.trainer import train_run
from model.checkpoint import encode, load
from model.errors import CheckpointError
from tests.support.runs import classic_like, small_text
from tests.support.stores import announce, refreshed


def test_most_recently_trained_run_is_served(trained: RunStore):
    models = refreshed(trained)
    assert models.current.id == "gru@60"
    announce(trained.get("classic"), 70, b"")
    models.refresh()
    assert models.current.id == "classic@70"


def test_untrained_run_does_not_replace_a_trained_one(trained: RunStore):
    models = refreshed(trained)
    new = trained.create("new", classic_like(), small_text(), "small.txt")
    train_run(new, lambda: True)
    announce(new, 0, b"")
    models.refresh()
    assert models.current.id == "gru@60"
    announce(new, 5, b"")
    models.refresh()
    assert models.current.id == "new@5"


def test_untrained_run_is_served_if_it_is_the_only_one(tmp_path):
    store = RunStore(tmp_path)
    run = store.create("new", classic_like(), small_text(), "small.txt")
    models = refreshed(store)
    with pytest.raises(NotReadyError, match="no checkpoint in"):
        _ = models.current
    train_run(run, lambda: True)
    announce(run, 0, b"")
    models.refresh()
    assert models.current.step == 0


def torn(run: Run) -> bytes:
    return next(reversed(run.checkpoints().values())).read_bytes()[:-100]


def foreign(run: Run) -> bytes:
    return b"not a checkpoint"


def another(run: Run) -> bytes:
    """A valid checkpoint, but not the announced one."""
    return next(iter(run.checkpoints().values())).read_bytes()


@pytest.mark.parametrize("bad", [torn, foreign, another])
def test_bad_checkpoint_is_refused_once_and_the_last_good_stays(trained: RunStore, caplog, bad):
    models = refreshed(trained)
    good = models.current
    run = trained.get("gru")
    announce(run, 70, bad(run))
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            models.refresh()
    assert models.current is good
    assert models.refusals == 1
    assert models.last_refusal is not None
    assert (models.last_refusal.run, models.last_refusal.file) == ("gru", "step-000000070.safetensors")
    assert [record.message for record in caplog.records] == [
        f"checkpoint step-000000070.safetensors of run gru refused: {models.last_refusal.reason}"
    ]


def test_bad_checkpoint_is_served_once_repaired(trained: RunStore):
    models = refreshed(trained)
    run = trained.get("gru")
    announce(run, 70, foreign(run))
    models.refresh()
    announce(run, 70, b"")
    models.refresh()
    assert models.current.id == "gru@70"


def test_start_with_a_bad_newest_checkpoint_loads_the_previous(trained: RunStore):
    run = trained.get("gru")
    announce(run, 70, torn(run))
    models = refreshed(trained)
    assert models.current.id == "gru@60"
    assert models.refusals == 1


def test_run_without_good_checkpoints_is_skipped_for_another(trained: RunStore):
    for path in trained.get("gru").checkpoints().values():
        path.write_bytes(b"")
    assert refreshed(trained).current.id == "classic@60"


def test_damaged_latest_json_is_refused_and_files_are_searched(trained: RunStore):
    (trained.get("gru").path / "latest.json").write_text("{")
    models = refreshed(trained)
    assert models.current.id == "gru@60"
    assert models.last_refusal is not None
    assert models.last_refusal.file == "latest.json"


def test_checkpoint_with_non_finite_weights_is_refused(trained: RunStore):
    models = refreshed(trained)
    run = trained.get("gru")
    checkpoint = load(run.checkpoint_path(60))
    checkpoint.parameters[3] = np.nan
    data = encode(checkpoint)
    announce(run, 70, data)
    models.refresh()
    assert models.current.id == "gru@60"
    assert models.last_refusal is not None
    assert "holds values that are not finite" in models.last_refusal.reason


def test_deleted_run_is_served_until_another_is_available(trained: RunStore):
    models = refreshed(trained)
    shutil.rmtree(trained.get("classic").path)
    shutil.rmtree(trained.get("gru").path)
    models.refresh()
    assert models.current.id == "gru@60"
    with pytest.raises(ModelNotFoundError):
        models.get("gru@20")


@pytest.mark.parametrize(
    ("name", "model"),
    [
        (None, "gru@60"),
        ("gru", "gru@60"),
        ("classic", "classic@60"),
        ("classic@0", "classic@0"),
        ("classic@000020", "classic@20"),
        ("gru@60", "gru@60"),
    ],
)
def test_model_is_found_by_name(trained: RunStore, name, model):
    assert refreshed(trained).get(name).id == model


def test_best_model_is_found_by_name_and_by_step(trained: RunStore):
    models = refreshed(trained)
    latest = trained.get("classic").latest()
    assert latest is not None
    assert latest.best is not None
    best = models.get("classic@best")
    assert (best.step, best.digest) == (latest.best.step, latest.best.digest)
    same = models.get(best.id)  # whichever file contains it
    assert all(
        np.array_equal(value, same.network.parameters[name])
        for name, value in best.network.parameters.items()
    )


def test_step_is_loaded_from_its_own_file_even_if_best(trained: RunStore):
    run = trained.get("classic")
    latest = run.latest()
    path = run.checkpoint_path(latest.best.step)
    if not path.exists():
        checkpoint = load(run.path / latest.best.file)
        checkpoint.progress["smooth_loss"] = 1.0  # another file with the same weights
        path.write_bytes(encode(checkpoint))
    found = refreshed(trained).get(f"classic@{latest.best.step}")
    assert found.digest == load(path).digest != latest.best.digest


@pytest.mark.parametrize(
    "name", ["", "nothing", "gru@", "gru@61", "gru@x", "@60", "../gru", "gru@-1", "gru@60@60", "GRU"]
)
def test_name_without_a_model_is_refused(trained: RunStore, name):
    with pytest.raises(ModelNotFoundError):
        refreshed(trained).get(name)


def test_missing_step_is_refused_with_the_available_steps(trained: RunStore):
    with pytest.raises(ModelNotFoundError, match=r"no checkpoint 33; it has the steps 0, 20, .*60"):
        refreshed(trained).get("gru@33")


def test_run_without_checkpoint_is_not_ready(trained: RunStore):
    trained.create("new", classic_like(), small_text(), "small.txt")
    with pytest.raises(NotReadyError, match="'new' has no checkpoint yet: it is queued"):
        refreshed(trained).get("new")


def test_damaged_checkpoint_requested_by_name_is_reported(trained: RunStore):
    trained.get("classic").checkpoint_path(20).write_bytes(b"")
    with pytest.raises(CheckpointError):
        refreshed(trained).get("classic@20")


def test_named_models_over_the_byte_limit_evict_the_oldest_used(trained: RunStore):
    models = ModelStore(trained, cache_bytes=2 * refreshed(trained).get("classic@0").size)
    models.refresh()
    first, second = models.get("classic@0"), models.get("classic@20")
    assert models.get("classic@0") is first
    models.get("classic@40")
    assert models.get("classic@0") is first
    assert models.get("classic@20") is not second


def test_model_larger_than_the_cache_is_served_but_not_kept(trained: RunStore):
    models = ModelStore(trained, cache_bytes=1)
    models.refresh()
    assert models.get("classic@0") is not models.get("classic@0")


def test_loaded_model_cannot_be_changed(trained: RunStore):
    model = refreshed(trained).current
    with pytest.raises(ValueError, match="read-only"):
        model.network.parameters["c"][0] = 1


def test_progress_has_losses_but_no_random_state(trained: RunStore):
    progress = refreshed(trained).current.progress
    assert progress["smooth_loss"] > 0
    assert "random_state" not in progress
    json.dumps(progress)


def test_threads_get_the_requested_model_during_changes(trained: RunStore):
    models = refreshed(trained)
    run = trained.get("gru")
    wrong: list[str] = []

    def ask(name: str) -> None:
        wrong.extend(name for _ in range(50) if models.get(name).id != name)

    threads = [threading.Thread(target=ask, args=(f"classic@{step}",)) for step in (0, 20, 40, 60)]
    for thread in threads:
        thread.start()
    for step in range(70, 90, 5):
        announce(run, step, b"", time=2e9 + step)
        models.refresh()
        assert models.current.step == step
    for thread in threads:
        thread.join()
    assert not wrong


def test_run_that_cannot_be_read_does_not_stop_the_refresh(trained: RunStore, monkeypatch, caplog):
    models = refreshed(trained)
    announce(trained.get("classic"), 70, b"")
    checkpoints = Run.checkpoints

    def failing(run: Run) -> dict[int, Path]:
        if run.name == "gru":
            raise PermissionError("not yours")
        return checkpoints(run)

    monkeypatch.setattr(Run, "checkpoints", failing)
    (trained.root / "gru" / "latest.json").unlink()
    for _ in range(3):
        models.refresh()
    assert models.current.id == "classic@70"
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "run gru cannot be read"
    ]


def test_model_that_fails_to_load_does_not_stop_the_refresh(trained: RunStore, monkeypatch):
    announce(trained.get("classic"), 70, b"")

    def fail(run: str, path: object, checkpoint: object) -> object:
        if run == "classic":
            raise MemoryError
        return loaded(run, path, checkpoint)

    loaded = models_module.prepared
    monkeypatch.setattr(models_module, "prepared", fail)
    assert refreshed(trained).current.id == "gru@60"


def test_run_deleted_during_the_refresh_is_not_an_error(trained: RunStore, monkeypatch, caplog):
    new = trained.create("new", classic_like(), small_text(), "small.txt")
    runs = trained.list()
    shutil.rmtree(new.path)
    monkeypatch.setattr(trained, "list", lambda: runs)
    assert refreshed(trained).current.id == "gru@60"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_cached_models_of_a_deleted_run_are_released(trained: RunStore):
    models = refreshed(trained)
    announce(trained.get("classic"), 70, torn(trained.get("classic")))
    models.get("classic@60")
    models.refresh()
    assert (len(models._named), len(models._latest._known), len(models._refused)) == (1, 2, 1)
    shutil.rmtree(trained.root / "classic")
    models.refresh()
    assert (len(models._named), len(models._latest._known), len(models._refused)) == (0, 1, 0)
    assert set(trained._known._known) == {"gru"}
