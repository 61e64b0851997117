"""Merges several trained models of the same shape into one run, an ensemble."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from app.errors import InvalidRequestError
from app.intake.options import Options
from app.store.checkpoints import find_checkpoint, parse_model_name
from app.store.files import flush, is_regular, written_at
from app.store.records import CheckpointEntry, Latest, Status
from app.store.run import Run, Text
from app.store.run_store import RunStore, name_from
from app.store.space import Budget, Limits, workshop
from model.checkpoint import Checkpoint, encode, load
from model.errors import CharloomError
from model.evaluation import mean_logits_loss
from model.merging import member_networks, merge_checkpoints

CORPUS, BASELINES = "corpus.txt", "baselines.json"

logger = logging.getLogger(__name__)


class Part(NamedTuple):
    """One of the models to merge; `name` includes its step."""

    name: str
    run: Run
    checkpoint: Checkpoint


def merge_runs(store: RunStore, names: Sequence[str], name: str | None, limits: Limits) -> Run:
    """Adds a finished run that is the ensemble of the models `names` (`run`, `run@step`).

    Its text is that of the first model; its held-out loss is measured if the store has that text. Raises
    InvalidRequestError, ConfigError (the models differ), RunNotFoundError, ModelNotFoundError, NotReadyError,
    CheckpointError, RunExistsError, ConflictError (too many runs), OSError.
    """
    name = Options.parse({} if name is None else {"name": name}).name
    parts = read_parts(store, names)
    first = parts[0].run
    merged = merge_checkpoints({part.name: part.checkpoint for part in parts})
    loss = held_out_loss(first, merged)

    def fill(folder: Path) -> None:
        if is_regular(first.path / CORPUS):
            limits.budget.make_room((first.path / CORPUS).stat().st_size)
        for name in (CORPUS, BASELINES):
            _copy(first.path / name, folder / name)
        write_merged(Run(folder), merged, loss, store.last_trained(), limits.budget)

    with workshop(store, limits):
        spec = first.spec
        known = {"parts": [part.name for part in parts], "licence": _licence(parts)}
        return store.add(
            name or name_from(f"{first.name[:50]}-merged"),
            merged.config,
            Text(spec.corpus_name, spec.corpus_sha256, spec.characters),
            fill,
            name is None,
            findings=spec.findings,
            **known,
        )


def merge_group(run: Run, store_bytes: int | None) -> None:
    """Merges the finished members of a group. The caller must hold the group's lease. Deterministic.

    Raises CharloomError if a member cannot be used, OSError.
    """
    store = RunStore(run.path.parent)
    parts = read_parts(store, run.spec.member_names)
    merged = merge_checkpoints({part.name: part.checkpoint for part in parts}, run.config)
    if baselines := parts[0].run.baselines():
        run.write_baselines(baselines)
    loss = held_out_loss(run, merged)
    write_merged(run, merged, loss, store.last_trained(), Budget(store, store_bytes))
    logger.info("run %s is merged from %d members", run.name, len(parts))


def read_parts(store: RunStore, names: Sequence[str]) -> list[Part]:
    """Loads the models `names`. Raises as `merge_runs`."""
    parts = []
    for name in names:
        asked = parse_model_name(name)
        run = store.get(asked.run)
        found = find_checkpoint(run, asked.at)
        parts.append(Part(f"{run.name}@{found.step}", run, load(found.path)))
    twice = {part.name for part in parts if [other.name for other in parts].count(part.name) > 1}
    if twice:
        raise InvalidRequestError("models", f"must differ. Given more than once: {', '.join(sorted(twice))}")
    if len(parts) < 2:
        raise InvalidRequestError("models", f"must be at least 2. Given: {len(parts)}")
    return parts


def held_out_loss(run: Run, checkpoint: Checkpoint) -> float | None:
    """The loss of `checkpoint` on the held-out text of `run`; None if it cannot be measured."""
    characters = int(run.spec.characters * checkpoint.config.validation_fraction)
    if characters < 2:
        return None
    try:
        ids = checkpoint.vocabulary.encode(run.text_end(characters))
        return mean_logits_loss(member_networks(checkpoint), ids)
    except CharloomError:  # the text is missing, or has other characters
        return None


def write_merged(run: Run, merged: Checkpoint, loss: float | None, not_before: float, budget: Budget) -> None:
    """Writes the checkpoint and the records of a merged, finished run. Raises OSError, LeaseLostError."""
    known = loss if loss is not None and math.isfinite(loss) else None
    merged.progress |= {"best_loss": known, "best_step": merged.step, "as_of": merged.step}
    data = encode(merged)
    budget.make_room(len(data))
    path = run.checkpoint_path(merged.step)
    run.write(path, data)
    # later than all other checkpoints even if the clock was set back, because the newest one is served
    written = max(written_at(path), math.nextafter(not_before, math.inf))
    entry = CheckpointEntry(file=path.name, step=merged.step, digest=merged.digest, time=written, loss=known)
    losses, seconds = merged.losses, merged.progress["seconds"]
    point = {
        "step": merged.step,
        "loss": losses["loss"],
        "smooth_loss": losses["smooth_loss"],
        "validation_loss": known,
        "seconds": seconds,
    }
    run.remove(run.history_path)
    run.append(run.history_path, [point])
    run.write_latest(Latest(newest=entry, best=entry))
    status = Status(
        state="finished",
        step=merged.step,
        steps=0 if merged.config.minutes else merged.config.steps,
        fraction=1.0,
        heartbeat=time.time(),
        loss=losses["loss"],
        smooth_loss=losses["smooth_loss"],
        validation_loss=known,
        validation_step=None if known is None else merged.step,
        seconds=seconds,
    )
    run.write_status(status)


def _copy(source: Path, target: Path) -> None:
    if is_regular(source):
        shutil.copyfile(source, target, follow_symlinks=False)
        flush(target)


def _licence(parts: Sequence[Part]) -> str:
    """The licence of all texts; empty if they differ."""
    licences = {part.run.spec.licence for part in parts}
    return licences.pop() if len(licences) == 1 else ""
