"""Stores in the states that tests start from."""

from __future__ import annotations

from app.engine.models import ModelStore
from app.store.records import CheckpointEntry, Latest
from app.store.run import Run
from app.store.run_store import RunStore
from model.checkpoint import encode, load


def refreshed(store: RunStore) -> ModelStore:
    models = ModelStore(store)
    models.refresh()
    return models


def announce(run: Run, step: int, data: bytes, time: float = 2e9) -> None:
    """Announce a checkpoint as a worker does, with `data` as the content of its file."""
    whole = load(run.checkpoint_path(0))
    whole.step = step
    encode(whole)
    run.checkpoint_path(step).write_bytes(data or encode(whole))
    entry = CheckpointEntry(file=run.checkpoint_path(step).name, step=step, digest=whole.digest, time=time)
    run.write_latest(Latest(newest=entry))
