"""Export and import of a run as a zip of weights, configuration, loss curve, samples and a model card."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from app.errors import InvalidRequestError, TooLargeError
from app.intake.findings import counted
from app.intake.options import Options
from app.intake.planning import check_length
from app.intake.zip_directory import check_directory
from app.store.checkpoints import find_checkpoint
from app.store.files import Identity, flush, identity_of, open_regular, written_at
from app.store.history import POINTS, SAMPLES
from app.store.records import CheckpointEntry, Latest, RunSpec, Status
from app.store.run import Run, Text
from app.store.run_store import RunStore
from app.store.space import Limits, workshop
from model.checkpoint import Checkpoint, load

PIECE = 1 << 20
WEIGHTS, RECORD, CARD, CORPUS = "model.safetensors", "run.json", "README.md", "corpus.txt"
LINES = {"history.jsonl": POINTS, "samples.jsonl": SAMPLES}
LARGEST_RECORD, LARGEST_DIRECTORY = 1 << 20, 1 << 16
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # with other methods a file determines the memory needed
MAX_REASON = 300  # characters of a parser's message, which may quote the file


class ExportState(NamedTuple):
    """What an export would contain: `content` is equal while its bytes are the same.

    Attributes:
        changed: when its files changed, Unix seconds.
    """

    content: tuple[object, ...]
    changed: float


def export_state(run: Run, at: str | None, with_text: bool) -> ExportState:
    """Raises NotReadyError, ModelNotFoundError, OSError."""
    found = find_checkpoint(run, at)
    paths = (run.path / RECORD, found.path, *(run.path / name for name in _lines(with_text)))
    files = [identity_of(path) for path in paths]
    content = (run.name, found.step, with_text, *map(_digest, files))
    return ExportState(content, max(file.modified for file in files) / 1e9)


@lru_cache(256)
def _digest(file: Identity) -> str:
    """The SHA-256 digest of a file's content, or "" if the file does not exist. Raises OSError."""
    try:
        with open_regular(Path(file.path)) as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


def _lines(with_text: bool) -> tuple[str, ...]:
    return (*LINES, CORPUS) if with_text else (*LINES,)


def export(run: Run, at: str | None, with_text: bool, target: Path | IO[bytes]) -> str:
    """Writes `run` at checkpoint `at` as a zip into `target`; returns the file name to use. Deterministic.

    Raises NotReadyError, ModelNotFoundError, CheckpointError, OSError.
    """
    step, path, _ = find_checkpoint(run, at)
    checkpoint = load(path)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        _pack(archive, CARD, [card(run, checkpoint).encode()])
        _pack(archive, RECORD, [run.spec.model_dump_json(indent=2).encode()])
        with open_regular(path) as content:
            _pack(archive, WEIGHTS, iter(lambda: content.read(PIECE), b""))
        for name, lines in LINES.items():
            if os.path.lexists(run.path / name):
                with open_regular(run.path / name) as content:
                    _pack(archive, name, lines.valid(content), zipfile.ZIP_DEFLATED)
        if with_text and os.path.lexists(run.path / CORPUS):
            with open_regular(run.path / CORPUS) as content:
                _pack(archive, CORPUS, iter(lambda: content.read(PIECE), b""), zipfile.ZIP_DEFLATED)
    return f"{run.name}-{step}.zip"


def _pack(
    archive: zipfile.ZipFile, name: str, pieces: Iterable[bytes], compression: int = zipfile.ZIP_STORED
) -> None:
    entry = zipfile.ZipInfo(name)  # has a fixed date, 1980, so that the same run gives the same bytes
    entry.compress_type = compression
    with archive.open(entry, "w", force_zip64=True) as out:
        for piece in pieces:
            out.write(piece)


def card(run: Run, checkpoint: Checkpoint) -> str:
    """The model card: Markdown with a YAML header."""
    spec, config, losses = run.spec, run.config, checkpoint.losses
    licence = json.dumps(spec.licence or "unknown")
    rows = [
        (
            "Network",
            f"{config.cell}, {config.layers} x {config.hidden} units, {counted(config.members, 'member')}",
        ),
        ("Step", f"{checkpoint.step:,}"),
        ("Vocabulary", counted(len(checkpoint.vocabulary), "character")),
        ("Text", f"{spec.corpus_name.replace('|', ' ')}, {counted(spec.characters, 'character')}"),
        ("Text's sha256 (UTF-8)", spec.corpus_sha256),
        ("Forked from", spec.parent or "nothing"),
        *((name.replace("_", " "), _number(losses[name])) for name in ("loss", "smooth_loss")),
        ("loss of the best checkpoint", _number(losses["best_loss"])),
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
    """Adds an exported run to the store, under its own name unless `given` has a `name`.

    The run can be served and forked, and resumed if the export includes its text. Raises InvalidRequestError
    if `content` is not a valid export, TooLargeError, RunNameError, RunExistsError, CheckpointError,
    ConflictError, OSError.
    """
    unknown = sorted(set(given) - {"name"})
    if unknown:
        raise InvalidRequestError(unknown[0][:80], "is not an option of an import: only name is")
    name = Options.parse(given).name
    with workshop(store, limits) as folder:
        _unpack(content, folder, limits.text)
        limits.budget.make_room(0)
        return _adopt(store, name, folder)


@contextmanager
def _refusing() -> Iterator[None]:
    """Turns any error in the block into InvalidRequestError. For code that only reads the given file."""
    try:
        yield
    except (InvalidRequestError, TooLargeError):
        raise
    except Exception as error:
        raise InvalidRequestError("file", f"is not an exported run: {error!s:.{MAX_REASON}}") from None


def _unpack(content: IO[bytes], folder: Path, limit: int) -> None:
    """Unpacks the known files of an export; names from the archive are never used as paths."""
    with _refusing():
        check_directory(content, LARGEST_DIRECTORY)
        archive = zipfile.ZipFile(content)
    with archive:
        present = set(archive.namelist())
        for name in (RECORD, WEIGHTS):
            if name not in present:
                raise InvalidRequestError("file", f"is not an exported run: it has no {name}")
        for name in (RECORD, WEIGHTS, *LINES, CORPUS):
            if name in present:
                with (folder / name).open("wb") as out:
                    for piece in _pieces(archive, name, LARGEST_RECORD if name == RECORD else limit):
                        out.write(piece)
                flush(folder / name)


def _pieces(archive: zipfile.ZipFile, name: str, limit: int) -> Iterator[bytes]:
    with _refusing():
        if archive.getinfo(name).compress_type not in PACKED:
            raise ValueError(f"{name} is neither stored nor deflated")
        member = archive.open(name)
    size = 0
    with member:
        while True:
            with _refusing():
                piece = member.read(PIECE)
            if not piece:
                return
            size += len(piece)
            if size > limit:
                raise TooLargeError(f"{name} must have at most {limit:,} bytes unpacked; this one is larger")
            yield piece


def _check(folder: Path) -> tuple[RunSpec, Checkpoint]:
    """Checks that the unpacked files are valid and belong together. Raises InvalidRequestError."""
    with _refusing():
        spec = RunSpec.parse((folder / RECORD).read_bytes(), RECORD)
        check_length(spec.config, spec.characters)
        checkpoint = load(folder / WEIGHTS)
        if (checkpoint.config, checkpoint.text_sha256) != (spec.config, spec.corpus_sha256):
            raise ValueError("its weights belong to another network")
        for name, lines in LINES.items():
            if (folder / name).exists():
                lines.check(folder / name)
        if (folder / CORPUS).exists():
            _check_text(folder / CORPUS, spec, checkpoint)
    return spec, checkpoint


def _check_text(path: Path, spec: RunSpec, checkpoint: Checkpoint) -> None:
    """Raises ValueError unless the file is the run's text and the checkpoint knows its characters."""
    digest, decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
    length, distinct = 0, set[str]()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            text = decoder.decode(piece)
            length += len(text)
            distinct.update(text)
    decoder.decode(b"", final=True)
    if (digest.hexdigest(), length) != (spec.corpus_sha256, spec.characters):
        raise ValueError(f"{CORPUS} is not the text that {RECORD} describes")
    if not distinct <= set(checkpoint.vocabulary.characters):
        raise ValueError(f"{CORPUS} holds characters that the weights do not know")


def _imported_status(spec: RunSpec, checkpoint: Checkpoint, with_text: bool) -> Status:
    losses, progress = checkpoint.losses, checkpoint.progress
    held_out = losses["best_loss"] if spec.config.best_by == "validation_loss" else None
    finished = bool(spec.steps) and checkpoint.step >= spec.steps
    return Status(
        state="finished" if finished else "stopped",
        step=checkpoint.step,
        steps=spec.steps,
        fraction=min(1.0, checkpoint.step / spec.steps) if spec.steps else 0.0,
        reason="imported"
        if with_text
        else "imported without its text: fork it with a text to continue training",
        loss=losses["loss"],
        smooth_loss=losses["smooth_loss"],
        validation_loss=held_out,
        validation_step=None if held_out is None else progress.get("best_step"),
        seconds=progress.get("seconds", 0.0),
    )


def _adopt(store: RunStore, name: str | None, folder: Path) -> Run:
    spec, checkpoint = _check(folder)
    with _refusing():
        status = _imported_status(spec, checkpoint, (folder / CORPUS).exists())

    def fill(target: Path) -> None:
        file = f"step-{checkpoint.step:09d}.safetensors"
        (folder / WEIGHTS).rename(target / file)
        for line_file in (*LINES, CORPUS):
            if (folder / line_file).exists():
                (folder / line_file).rename(target / line_file)
        # the time of import: other machines' clocks must not decide which run is the newest
        written = written_at(target / file)
        entry = CheckpointEntry(
            file=file, step=checkpoint.step, digest=checkpoint.digest, time=written, imported=True
        )
        Latest(newest=entry).write(target / "latest.json")
        status.write(target / "status.json")

    text = Text(spec.corpus_name, spec.corpus_sha256, spec.characters)
    return store.add(name or spec.name, spec.config, text, fill, parent=spec.parent, licence=spec.licence)
