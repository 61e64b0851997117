"""A store copied with tar while its worker writes is complete: it can be served and trained further."""

import subprocess
from pathlib import Path

import pytest

from app.store.run_store import RunStore
from app.training.trainer import train_run
from tests.support.runs import classic_like, outcome, small_text, wait_until, worker_process
from tests.support.stores import refreshed


@pytest.mark.slow
def test_backup_made_during_training_can_be_restored(tmp_path: Path):
    config = classic_like(steps=1200, checkpoint_every=10, sample_every=0)
    store = RunStore(tmp_path / "checkpoints")
    run = store.create("run", config, small_text(), "small.txt")
    backups = [tmp_path / f"backup-{number}" for number in range(3)]
    with worker_process(store):
        for backup in backups:
            before = run.latest()
            wait_until(lambda before=before: run.latest() != before, "the worker writes a checkpoint")
            backup.mkdir()
            # tar warns of files that appear or vanish during the copy, with exit code 1
            tar = f"tar -C '{store.root}' -cf - . | tar -C '{backup}' -xf -"
            subprocess.run(["sh", "-c", tar], check=True, capture_output=True, timeout=60)
    expected = RunStore(tmp_path / "undisturbed").create("run", config, small_text(), "small.txt")
    train_run(expected, lambda: False)
    for backup in backups:
        restored = RunStore(backup)
        assert refreshed(restored).current.run == "run"
    train_run(restored.get("run"), lambda: False)
    assert outcome(restored.get("run")) == outcome(expected)
