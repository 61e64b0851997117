"""Runs made of what people bring: a text and options, a step of another run, or a run exported elsewhere.

Works on files, with bounded memory: not for an event loop.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from app.errors import ConflictError, InvalidRequestError, ModelNotFoundError, NotReadyError
from app.intake.planning import PLANNED, cadence, shape, sizes, updates
from app.intake.text import (
    CORES,
    Finding,
    Looked,
    Source,
    as_details,
    check_length,
    expected_seconds,
    expected_speed,
    write_text,
)
from app.store.files import open_regular, temporary_in
from app.store.records import RUN_NAME, Control, RunNameError
from app.store.run import Run
from app.store.run_store import RunStore, default_name
from app.store.space import Budget
from model.batches import windows_per_epoch
from model.checkpoint import load
from model.config import PRESETS, RunConfig
from model.errors import ConfigError

SIZES = ("cell", "hidden", "layers", "embedding", "members")  # what fixes the weights
LONGEST_LICENCE = 200
MOST_EPOCHS = 1_000_000
DEFAULT_PRESET = "gru-pair"


class Limits(NamedTuple):
    """Most bytes of a text, most runs of a store, and what all its files may take."""

    text: int
    runs: int
    budget: Budget


@dataclass(frozen=True)
class Made:
    """A run that waits in the queue, and what was found about its text."""

    run: Run
    distinct: int
    findings: Sequence[Finding]
    seconds: float


class Options(NamedTuple):
    """What was asked besides the fields of a configuration, which are `overrides`.

    `epochs`, passes through the text that is trained on, is another way to say `steps`.
    """

    name: str | None
    preset: str | None
    encoding: str
    licence: str
    priority: int
    epochs: float | None
    overrides: dict[str, Any]

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Options:
        """Raises ConfigError, RunNameError."""
        values = dict(given)
        name = values.pop("name", None)
        if name is not None and not (isinstance(name, str) and RUN_NAME.fullmatch(name)):
            raise RunNameError(str(name))
        texts = {key: values.pop(key, "") for key in ("preset", "encoding", "licence")}
        for key, value in texts.items():
            if not isinstance(value, str) or len(value) > LONGEST_LICENCE:
                raise ConfigError(key, f"must be a text of at most {LONGEST_LICENCE} characters")
        return cls(
            name=name,
            preset=texts["preset"] or None,
            encoding=texts["encoding"] or "utf-8",
            licence=texts["licence"],
            priority=_priority(values.pop("priority", 0)),
            epochs=_epochs(values),
            overrides=values,
        )


def _priority(given: Any) -> int:
    try:
        priority = int(str(given)[:20])
    except ValueError:
        priority = 1001
    if not -1000 <= priority <= 1000 or isinstance(given, (bool, float)):
        raise ConfigError("priority", f"must be a whole number from -1000 to 1000. Given: {given!r:.40}")
    return priority


def _epochs(values: dict[str, Any]) -> float | None:
    given = values.pop("epochs", None)
    if given is None:
        return None
    for other in ("steps", "minutes"):
        if other in values:
            raise ConfigError("epochs", f"cannot be given with {other}: either ends the run")
    try:
        epochs = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        epochs = math.nan
    if not 0 < epochs <= MOST_EPOCHS:
        raise ConfigError(
            "epochs", f"must be a number above 0, at most {MOST_EPOCHS:,}. Given: {given!r:.40}"
        )
    return epochs


def make_config(preset: str, overrides: Mapping[str, Any]) -> RunConfig:
    """The preset with some fields changed. Raises ConfigError."""
    if preset not in PRESETS:
        raise ConfigError("preset", f"must be one of {', '.join(PRESETS)}. Given: {preset!r}")
    return _changed(PRESETS[preset], overrides)


def suited(characters: int, distinct: int, overrides: Mapping[str, Any]) -> RunConfig:
    """What suits a text of that size, and a time if one is given; nothing asked for is changed.

    How fast the worker's machine is, is not known here: a common one is assumed. Raises ConfigError.
    """
    config = PRESETS[DEFAULT_PRESET].replace(**shape(characters))
    asked = _changed(config, overrides)
    if not asked.minutes:
        return asked
    speed = expected_speed(config, distinct)
    chosen = config.replace(preset=PLANNED, **sizes(characters, 60 * asked.minutes * speed, CORES))
    chosen = chosen.replace(
        **cadence(updates(chosen.replace(minutes=asked.minutes), expected_speed(chosen, distinct)))
    )
    return _changed(chosen, overrides)


def _changed(config: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    # minutes take precedence: who gives only steps wants the run to end by them
    by_steps = {"minutes": 0.0} if "steps" in overrides else {}
    return config.replace(**by_steps | dict(overrides))


def _by_epochs(config: RunConfig, options: Options, characters: int) -> RunConfig:
    """`config`, ending after the epochs that were asked for of a text of that length, if any were.

    Raises TextError for a text too short for a single window, ConfigError for too many steps.
    """
    if options.epochs is None:
        return config
    learnt = characters - int(characters * config.validation_fraction)
    steps = max(1, round(options.epochs * windows_per_epoch(learnt, config.sequence_length, config.streams)))
    return config.replace(minutes=0.0, steps=steps, **cadence(steps) | options.overrides)


def new_run(
    store: RunStore,
    given: Mapping[str, Any],
    sources: Sequence[Source],
    limits: Limits,
    suggested: str = "",
    **known: str,
) -> Made:
    """Queue a run on the text of `sources`; `known` are further fields of its RunSpec.

    Where no name is given it is `suggested` or that of the text, with a number where that is taken.

    Raises ConfigError, RunNameError, RunExistsError, UnusableTextError, TextError (too short), TooLargeError,
    ConflictError (too many runs), OSError.
    """
    options = Options.parse(given)
    with workshop(store, limits) as folder:
        looked, config = _look(options, sources, folder, limits)
        limits.budget.make_room(0)
        name = suggested or looked.text.name
        run = _queue(store, config, options, looked, known, default_name(name))
    return _made(run, looked)


def check(
    store: RunStore, given: Mapping[str, Any], sources: Sequence[Source], limits: Limits
) -> tuple[Looked, RunConfig]:
    """What `new_run` would find and choose; nothing stays in the store. Raises as `new_run`."""
    with workshop(store, limits) as folder:
        return _look(Options.parse(given), sources, folder, limits)


def _look(
    options: Options, sources: Sequence[Source], folder: Path, limits: Limits
) -> tuple[Looked, RunConfig]:
    """Write the text into `folder`, and choose what it is trained with."""
    config = make_config(options.preset or DEFAULT_PRESET, options.overrides)
    if not sources:
        raise InvalidRequestError("text", "is missing: send it as the body, or as a multipart file")
    looked = write_text(sources, options.encoding, folder / "corpus.txt", limits.text)
    if options.preset is None:
        config = suited(looked.text.characters, looked.distinct, options.overrides)
    config = _by_epochs(config, options, looked.text.characters)
    check_length(config, looked.text.characters)
    return looked, config


def fork(
    store: RunStore,
    name: str,
    given: Mapping[str, Any],
    sources: Sequence[Source],
    limits: Limits,
    suggested: str = "",
    **known: str,
) -> Made:
    """Queue a run that begins with the weights of another, at `step` (a number, `best` or the newest).

    Raises as `new_run`, and RunNotFoundError, ModelNotFoundError, NotReadyError, CheckpointError.
    """
    parent = store.get(name)
    values = dict(given)
    at = values.pop("step", None)
    options = Options.parse(values)
    if options.preset is not None:
        raise ConfigError("preset", "is that of the run that is forked: change single fields instead")
    config = _changed(parent.config, options.overrides)
    for field in SIZES:
        if getattr(config, field) != getattr(parent.config, field):
            raise ConfigError(
                field, f"is {getattr(parent.config, field)!r} in run {name!r}: a fork cannot change it"
            )
    step, path = checkpoint_at(parent, at)
    with workshop(store, limits) as folder:
        target = folder / "corpus.txt"
        if sources:
            looked = write_text(sources, options.encoding, target, limits.text)
        else:
            with open_regular(parent.path / "corpus.txt") as file:
                looked = write_text([Source(parent.spec.corpus_name, file)], "utf-8", target, 1 << 30)
        limits.budget.make_room(0)
        config = _by_epochs(config, options, looked.text.characters)
        check_length(config, looked.text.characters)
        initial = folder / "initial.safetensors"
        shutil.copyfile(path, initial, follow_symlinks=False)
        begins = load(initial)
        if config.members > 1 and "members" not in begins.tensors:
            raise ConfigError("step", "must be one with the weights of every member: the best has not")
        known |= {"parent": f"{name}@{step}", "licence": options.licence or parent.spec.licence}
        wanted = default_name(suggested) if suggested else f"{name[:50]}-fork"
        run = _queue(store, config, options, looked, known, wanted)
    return _made(run, looked)


def checkpoint_at(run: Run, at: Any) -> tuple[int, Path]:
    """Step and file of a checkpoint: the newest for None, that of a step, or the best.

    Raises NotReadyError without any, ModelNotFoundError if there is none at that step.
    """
    latest, steps = run.usable_latest(), run.checkpoints()
    if latest is None and not steps:
        raise NotReadyError(f"run {run.name!r} has no checkpoint yet: it is {run.standing.state}")
    if at is None:
        step = latest.newest.step if latest else max(steps)
        return step, run.checkpoint_path(step)
    if latest and latest.best and str(at) == "best":
        return latest.best.step, run.path / latest.best.file
    wanted = str(at)[:13]
    if wanted.isdecimal() and wanted.isascii() and int(wanted) in steps:
        return int(wanted), steps[int(wanted)]
    shown = ", ".join(map(str, list(steps)[:12]))
    raise ModelNotFoundError(f"run {run.name!r} has no checkpoint {wanted!r}; it has the steps {shown}")


@contextmanager
def workshop(store: RunStore, limits: Limits) -> Iterator[Path]:
    """A folder of the store, on its disk, that is gone after the block. Raises ConflictError, OSError."""
    if len(store.list()) >= limits.runs:
        raise ConflictError(f"the store has {limits.runs} runs (CHARLOOM_MAX_RUNS): delete some first")
    with scratch(store) as folder:
        yield folder


@contextmanager
def scratch(store: RunStore) -> Iterator[Path]:
    """The same, whatever the store holds. Raises OSError."""
    store.root.mkdir(parents=True, exist_ok=True)
    folder = temporary_in(store.root)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _queue(
    store: RunStore,
    config: RunConfig,
    options: Options,
    looked: Looked,
    known: Mapping[str, str],
    otherwise: str,
) -> Run:
    def fill(folder: Path) -> None:
        for path in looked.path.parent.iterdir():
            path.rename(folder / path.name)
        if options.priority:
            Control(priority=options.priority).write(folder / "control.json")

    name, unnamed = options.name or otherwise, options.name is None
    told = {"licence": options.licence, "findings": as_details(looked.findings)} | dict(known)
    return store.add(name, config, looked.text, fill, unnamed, **told)


def _made(run: Run, looked: Looked) -> Made:
    return Made(run, looked.distinct, looked.findings, expected_seconds(run.config, looked.distinct))
