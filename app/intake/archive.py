"""A run as one file, a zip of weights, configuration, curve, samples and a model card, and the way back."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from app.errors import InvalidRequestError, TooLargeError
from app.intake.options import Options
from app.store.checkpoints import find_checkpoint
from app.store.files import flush, open_regular
from app.store.records import CheckpointEntry, Latest, RunSpec, Status
from app.store.run import Run, Text
from app.store.run_store import RunStore
from app.store.space import Limits, workshop
from model.checkpoint import Checkpoint, load
from model.errors import CharloomError

PIECE = 1 << 20
WEIGHTS, RECORD, CARD, CORPUS = "model.safetensors", "run.json", "README.md", "corpus.txt"
LINES = ("history.jsonl", "samples.jsonl")
LARGEST_RECORD = 1 << 20


def export_state(run: Run, at: str | None, with_text: bool) -> tuple[object, ...]:
    """Equal while an export would give the same bytes; its last part is when its files changed, Unix seconds.

    Raises NotReadyError, ModelNotFoundError.
    """
    found = find_checkpoint(run, at)
    state: list[object] = [run.name, found.step]
    changed = 0.0
    for path in (run.path / RECORD, found.path, *(run.path / name for name in _lines(with_text))):
        try:
            stat = path.lstat()
        except FileNotFoundError:
            state.append(None)
        else:
            state.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
            changed = max(changed, stat.st_mtime)
    return (*state, with_text, changed)


def _lines(with_text: bool) -> tuple[str, ...]:
    return (*LINES, CORPUS) if with_text else LINES


def export(run: Run, at: str | None, with_text: bool, target: Path | IO[bytes]) -> str:
    """Write `run` at a step as a zip into `target`; the name that it should be given. Same run, same bytes.

    Raises NotReadyError, ModelNotFoundError, CheckpointError, OSError.
    """
    step, path, _ = find_checkpoint(run, at)
    checkpoint = load(path)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        # without a date: it would be the time of the export
        archive.writestr(zipfile.ZipInfo(CARD), card(run, checkpoint))
        archive.writestr(zipfile.ZipInfo(RECORD), run.spec.model_dump_json(indent=2))
        _pack(archive, path, WEIGHTS, zipfile.ZIP_STORED)
        for name in _lines(with_text):
            if os.path.lexists(run.path / name):
                _pack(archive, run.path / name, name, zipfile.ZIP_DEFLATED)
    return f"{run.name}-{step}.zip"


def _pack(archive: zipfile.ZipFile, path: Path, name: str, compression: int) -> None:
    """A file of the store, as `name`; not what a link points to."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = compression
    with open_regular(path) as content, archive.open(entry, "w", force_zip64=True) as out:
        shutil.copyfileobj(content, out, PIECE)


def card(run: Run, checkpoint: Checkpoint) -> str:
    """What a person should know of a model, in Markdown with a head that programs read."""
    spec, config, losses = run.spec, run.config, checkpoint.losses
    licence = json.dumps(spec.licence or "unknown")
    rows = [
        ("Network", f"{config.cell}, {config.layers} x {config.hidden} units, {config.members} member(s)"),
        ("Step", f"{checkpoint.step:,}"),
        ("Characters it knows", str(len(checkpoint.vocabulary))),
        ("Text", f"{spec.corpus_name.replace('|', ' ')}, {spec.characters:,} characters"),
        ("Text's sha256 (UTF-8)", spec.corpus_sha256),
        ("Forked from", spec.parent or "nothing"),
        *((name.replace("_", " "), _number(losses[name])) for name in ("loss", "smooth_loss")),
        ("lowest loss, kept as the best", _number(losses["best_loss"])),
        ("Digest of the weights", checkpoint.digest),
        ("Settings", json.dumps(config.to_dict())),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        f"---\nlicense: {licence}\ntags: [charloom, char-rnn]\n---\n\n# {spec.name}\n\n"
        "A character-level recurrent network. Losses are in nats per character.\n\n"
        f"| | |\n|---|---|\n{table}\n\nServe it again: `charloom runs import FILE`.\n"
    )


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "not measured"


def import_run(store: RunStore, given: dict[str, Any], content: IO[bytes], limits: Limits) -> Run:
    """Add an exported run to the store, under its own name unless `name` is given.

    It can be served and forked; it goes on training, when resumed, if its text came with it.
    Raises InvalidRequestError for what is not such a file, TooLargeError, RunNameError, RunExistsError,
    CheckpointError, ConflictError, OSError.
    """
    unknown = sorted(set(given) - {"name"})
    if unknown:
        raise InvalidRequestError(unknown[0][:80], "is not an option of an import: name is the only one")
    name = Options.parse(given).name
    with workshop(store, limits) as folder:
        try:
            with zipfile.ZipFile(content) as archive:
                _unpack(archive, folder, limits.text)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise InvalidRequestError("file", f"is not an exported run: {error}") from None
        limits.budget.make_room(0)
        return _adopt(store, name, folder)


def _unpack(archive: zipfile.ZipFile, folder: Path, limit: int) -> None:
    """Write the files that an export has; names from the archive are never used as paths."""
    present = set(archive.namelist())
    for name in (RECORD, WEIGHTS):
        if name not in present:
            raise InvalidRequestError("file", f"is not an exported run: it has no {name}")
    for name in (RECORD, WEIGHTS, *LINES, CORPUS):
        if name in present:
            with archive.open(name) as content, (folder / name).open("wb") as out:
                for piece in _pieces(content, LARGEST_RECORD if name == RECORD else limit, name):
                    out.write(piece)
            flush(folder / name)


def _pieces(content: IO[bytes], limit: int, name: str) -> Iterator[bytes]:
    size = 0
    while piece := content.read(PIECE):
        size += len(piece)
        if size > limit:
            raise TooLargeError(f"{name} must have at most {limit:,} bytes unpacked; this one has more")
        yield piece


def _adopt(store: RunStore, name: str | None, folder: Path) -> Run:
    try:
        spec = RunSpec.read(folder / RECORD)
        checkpoint = load(folder / WEIGHTS)
    except CharloomError as error:
        reason = str(error).replace(f"{folder}/", "")
        raise InvalidRequestError("file", f"is not an exported run: {reason}") from None
    if (checkpoint.config, checkpoint.text_sha256) != (spec.config, spec.corpus_sha256):
        raise InvalidRequestError("file", "is not an exported run: its weights are of another one")
    losses = checkpoint.losses
    held_out = losses["best_loss"] if spec.config.best_by == "validation_loss" else None
    finished = bool(spec.steps) and checkpoint.step >= spec.steps
    reason = "imported" if (folder / CORPUS).exists() else "imported without its text: fork it to train on"
    status = Status(
        state="finished" if finished else "stopped",
        step=checkpoint.step,
        steps=spec.steps,
        fraction=min(1.0, checkpoint.step / spec.steps) if spec.steps else 0.0,
        reason=reason,
        loss=losses["loss"],
        smooth_loss=losses["smooth_loss"],
        validation_loss=held_out,
        validation_step=None if held_out is None else checkpoint.progress.get("best_step"),
        seconds=checkpoint.progress.get("seconds", 0.0),
    )

    def fill(target: Path) -> None:
        file = f"step-{checkpoint.step:09d}.safetensors"
        (folder / WEIGHTS).rename(target / file)
        for line_file in (*LINES, CORPUS):
            if (folder / line_file).exists():
                (folder / line_file).rename(target / line_file)
        written = max(1.0, spec.created)
        entry = CheckpointEntry(file=file, step=checkpoint.step, digest=checkpoint.digest, time=written)
        Latest(newest=entry).write(target / "latest.json")
        status.write(target / "status.json")

    text = Text(spec.corpus_name, spec.corpus_sha256, spec.characters)
    return store.add(name or spec.name, spec.config, text, fill, parent=spec.parent, licence=spec.licence)
