"""Creates runs: from a text and options, or as a fork of another run.

These functions work on files, in bounded memory; do not call them in an event loop.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from app.errors import InvalidRequestError
from app.intake.expectations import expected_loss
from app.intake.findings import Finding, as_details
from app.intake.needs import check_needs
from app.intake.options import Options, by_epochs
from app.intake.planning import (
    CORES,
    changed,
    check_apart,
    check_length,
    expected_seconds,
    expected_speed,
    make_config,
    suited,
    usual,
)
from app.intake.text import ReadText, copy_text, write_text
from app.store.capacity import of_workers
from app.store.checkpoints import find_checkpoint
from app.store.files import Source, open_regular
from app.store.groups import add_members
from app.store.records import Control
from app.store.run import Run
from app.store.run_store import RunStore, default_name, name_from
from app.store.space import Limits, check_runs, workshop
from model.checkpoint import load
from model.config import DEFAULT_PRESET, RunConfig
from model.errors import ConfigError
from model.warm_start import SIZES

ESTIMATED = 300_000  # characters of a text from which the expected loss is estimated
BEGINNING = 300  # characters of a text that are shown to the user


@dataclass(frozen=True)
class Made:
    """A new run in the queue, the findings about its text, and its expected training time in seconds."""

    run: Run
    distinct: int
    findings: Sequence[Finding]
    seconds: float


class Checked(NamedTuple):
    """The result of `check`: the text and its findings, the configuration, the loss, the beginning."""

    read: ReadText
    config: RunConfig
    expected_loss: tuple[float, float]
    beginning: str


def new_run(
    store: RunStore,
    given: Mapping[str, Any],
    sources: Sequence[Source],
    limits: Limits,
    suggested: str = "",
    **known: str,
) -> Made:
    """Adds a run on the text of `sources` to the queue; `known` are further fields of its RunSpec.

    If no name is given, it is `suggested` or the name of the text, with a number appended if it is taken.

    Raises ConfigError, RunNameError, RunExistsError, UnusableTextError, TextError (too short), TooLargeError,
    ConflictError (too many runs), OSError.
    """
    options = Options.parse(given)
    with workshop(store, limits) as folder:
        read, config = _read(options, sources, folder, limits)
        if options.apart:
            check_runs(store, limits, 1 + config.members)
        limits.budget.make_room(0)
        _check_needs(store, config, read, limits, options.apart)
        name = name_from(suggested) if suggested else default_name(read.text.name)
        run = _queue(store, config, options, read, known, name)
        if options.apart:
            add_members(store, run, options.priority)
    return _made(run, read)


def check(store: RunStore, given: Mapping[str, Any], sources: Sequence[Source], limits: Limits) -> Checked:
    """What `new_run` would do, without changing the store. Raises as `new_run`."""
    options = Options.parse(given)
    with workshop(store, limits) as folder:
        read, config = _read(options, sources, folder, limits)
        _check_needs(store, config, read, limits, options.apart)
        with read.path.open(encoding="utf-8", newline="") as file:
            text = file.read(ESTIMATED)
        loss = expected_loss(text, read.text.characters, config, read.distinct)
        return Checked(read, config, loss, text[:BEGINNING])


def _read(
    options: Options, sources: Sequence[Source], folder: Path, limits: Limits
) -> tuple[ReadText, RunConfig]:
    """Writes the text into `folder`, and chooses the configuration."""
    # before the text is read, so that bad settings are refused early
    preset = make_config(options.preset or DEFAULT_PRESET, options.overrides)
    members, asked = preset.members, options.overrides
    if options.apart:  # each member is trained as a run of one network
        check_apart(members)
        preset, asked = preset.replace(members=1), {**asked, "members": 1}
    if not sources:
        raise InvalidRequestError("text", "is missing: send it as the body, or as a multipart file")
    read = write_text(sources, options.encoding, folder / "corpus.txt", limits.text)
    config = preset if options.preset else _suited(read, asked)
    config = by_epochs(config, options, read.text.characters)
    check_length(config, read.text.characters)
    return read, config.replace(members=members) if options.apart else config


def _check_needs(
    store: RunStore, config: RunConfig, read: ReadText, limits: Limits, apart: bool = False
) -> None:
    """Raises ConfigError if the run needs more memory than the worker has, OSError for the disk."""
    trained = config.replace(members=1) if apart else config
    check_needs(trained, read.text.characters, read.distinct, of_workers(store), limits.budget)


def _suited(read: ReadText, asked: Mapping[str, Any]) -> RunConfig:
    config = usual(read.text.characters, asked)
    if not config.minutes:
        return config
    # the speed of the worker's machine is unknown here; that of a typical one is assumed
    assumed = partial(expected_speed, distinct=read.distinct)
    return suited(read.text.characters, asked, CORES, assumed)[0]


def fork(
    store: RunStore,
    name: str,
    given: Mapping[str, Any],
    sources: Sequence[Source],
    limits: Limits,
    suggested: str = "",
    **known: str,
) -> Made:
    """Adds a run to the queue that starts from a checkpoint of run `name`.

    `given["step"]` is a step or "best"; the newest checkpoint is the default. Raises as `new_run`, and
    RunNotFoundError, ModelNotFoundError, NotReadyError, CheckpointError.
    """
    parent = store.get(name)
    values = dict(given)
    at = values.pop("step", None)
    options = Options.parse(values)
    if options.apart:
        raise ConfigError("apart", "is for new runs only: a fork is trained as one run")
    if options.preset is not None:
        raise ConfigError("preset", "cannot be changed in a fork: change single fields instead")
    config = changed(parent.config, options.overrides)
    for field in SIZES:
        if getattr(config, field) != getattr(parent.config, field):
            raise ConfigError(
                field, f"is {getattr(parent.config, field)!r} in run {name!r}: a fork cannot change it"
            )
    step, path, _ = find_checkpoint(parent, at)
    with workshop(store, limits) as folder:
        # copied first: while the text is read, the parent's worker may delete the checkpoint
        initial = folder / "initial.safetensors"
        shutil.copyfile(path, initial, follow_symlinks=False)
        target = folder / "corpus.txt"
        if sources:
            read = write_text(sources, options.encoding, target, limits.text)
        else:
            with _text_of(parent) as file:
                read = copy_text(Source(parent.spec.corpus_name, file), target)
        limits.budget.make_room(0)
        config = by_epochs(config, options, read.text.characters)
        check_length(config, read.text.characters)
        _check_needs(store, config, read, limits)
        begins = load(initial)
        if config.members > 1 and "members" not in begins.tensors:
            raise ConfigError(
                "step",
                "must be a checkpoint with the weights of every member; the best checkpoint has "
                "none: give another step",
            )
        known |= {"parent": f"{name}@{step}", "licence": options.licence or parent.spec.licence}
        wanted = name_from(suggested) if suggested else f"{name[:50]}-fork"
        run = _queue(store, config, options, read, known, wanted)
    return _made(run, read)


def _text_of(parent: Run) -> BinaryIO:
    """Opens the text of a run. Raises InvalidRequestError if it was imported without its text, OSError."""
    try:
        return open_regular(parent.path / "corpus.txt")
    except FileNotFoundError:
        raise InvalidRequestError(
            "text", f"is missing: run {parent.name!r} has no text in this store"
        ) from None


def _queue(
    store: RunStore,
    config: RunConfig,
    options: Options,
    read: ReadText,
    known: Mapping[str, str],
    otherwise: str,
) -> Run:
    def fill(folder: Path) -> None:
        for path in read.path.parent.iterdir():
            path.rename(folder / path.name)
        if options.priority:
            Control(priority=options.priority).write(folder / "control.json")

    name, unnamed = options.name or otherwise, options.name is None
    fields: dict[str, Any] = {"licence": options.licence, "findings": as_details(read.findings)}
    fields |= dict(known) | {"apart": options.apart}
    return store.add(name, config, read.text, fill, unnamed, **fields)


def _made(run: Run, read: ReadText) -> Made:
    return Made(run, read.distinct, read.findings, expected_seconds(run.config, read.distinct))
