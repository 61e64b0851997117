"""Checkpoints: one safetensors file with everything that serving and an exact resume need.

Tensors: the parameters by name, `optimizer.*`, `state` (the carried hidden state), `best` and, for an
ensemble, `members`.

Metadata: one entry, `charloom`: the sha256 of everything else, a space, and a JSON object with the format
version, configuration, vocabulary, position and random state. The digest detects damage. There is only one
entry, because safetensors does not keep the order of several, so the same checkpoint always has the same
bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from model.cells import Array
from model.config import RunConfig
from model.ensemble import network_config
from model.errors import CheckpointError
from model.network import Network
from model.vocabulary import Vocabulary

KEY = "charloom"
VERSION = 1
MAX_BYTES = 2 * 1024**3
MAX_HEADER = 1 << 21  # bytes; twice what the largest vocabulary needs with every character escaped twice
MAX_STEP = 10**12 - 1  # file names have 12 digits for the step
NOT_A_FILE = "is a link, a directory or a device, not a regular file"
MAX_REASON = 300  # characters of a parser's message, which may quote the file


@dataclass
class Checkpoint:
    """A run after `step` updates.

    Attributes:
        parameters: (P,), as in `Network.flat`.
        text_sha256: the digest of the text it was trained on, in UTF-8.
        tensors: what only a resume needs: `optimizer.*`, `state` (L, S, B, M*H), `best` (P,) and, for an
            ensemble, `members` (M, P'). Empty for a checkpoint that is only for serving.
        progress: losses, elapsed seconds and random state, as JSON values.
        digest: sha256 of all of this, set by `encode` and `decode`.
    """

    config: RunConfig
    vocabulary: Vocabulary
    step: int
    parameters: Array
    text_sha256: str
    tensors: dict[str, Array] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    digest: str = ""

    @property
    def losses(self) -> dict[str, float | None]:
        """`loss` and `smooth_loss` at `step`, and `best_loss`; None if not known."""
        progress = self.progress
        losses = {name: progress.get(name) for name in ("loss", "smooth_loss", "best_loss")}
        if not self.tensors and "as_of" not in progress:
            # a best checkpoint of an earlier version: these are the losses of a later step
            losses |= {"loss": None, "smooth_loss": None}
        return losses

    def members(self) -> Array | None:
        """The parameters of each member, (M, P'); None if the checkpoint does not have them."""
        if self.config.members == 1:
            return np.asarray(self.parameters)[None]
        return self.tensors.get("members")

    def network(self) -> Network:
        """The network at this step."""
        return Network(network_config(self.config, len(self.vocabulary)), self.parameters)


def encode(checkpoint: Checkpoint) -> bytes:
    """The file's bytes; sets `checkpoint.digest`. Raises ValueError for numbers that are not finite."""
    tensors = dict(checkpoint.network().parameters) | checkpoint.tensors
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    described = json.dumps(
        {
            "version": VERSION,
            "config": checkpoint.config.to_dict(),
            "vocabulary": checkpoint.vocabulary.characters,
            "step": checkpoint.step,
            "text_sha256": checkpoint.text_sha256,
            "progress": checkpoint.progress,
        },
        allow_nan=False,
    )
    checkpoint.digest = _digest(described, tensors)
    return save_tensors(tensors, metadata={KEY: f"{checkpoint.digest} {described}"})


def decode(data: bytes, source: Path | str = "checkpoint") -> Checkpoint:
    """The checkpoint in a file's bytes. Raises CheckpointError, with the reason, if they are not a valid one.

    `source` is the file's name for error messages.
    """
    digest, _, described = _metadata(data, source).partition(" ")
    try:
        tensors = load_tensors(data)
    except Exception as error:  # the parser may raise anything for a damaged file
        raise CheckpointError(source, f"is truncated or damaged: {error!s:.{MAX_REASON}}") from None
    if digest != _digest(described, tensors):
        raise CheckpointError(source, "does not match its own checksum: it was damaged or changed")
    try:
        return _from_parts(json.loads(described), tensors, digest, source)
    except CheckpointError:
        raise
    except Exception as error:  # a file with a correct checksum may still have any content
        reason = f"does not describe a run that this version supports: {error!s:.{MAX_REASON}}"
        raise CheckpointError(source, reason) from None


def load(path: Path) -> Checkpoint:
    """The checkpoint in a file. Raises CheckpointError, with the reason, if it cannot be used.

    Symbolic links are refused, because one could point outside the run's directory.
    """
    try:
        # O_NONBLOCK: otherwise opening a named pipe would wait for a writer
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(path, NOT_A_FILE)
            if status.st_size > MAX_BYTES:
                raise CheckpointError(path, f"is larger than {MAX_BYTES} bytes, the limit")
            data = file.readall()
    except OSError as error:
        reason = NOT_A_FILE if path.is_symlink() or path.is_dir() else f"cannot be read: {error.strerror}"
        raise CheckpointError(path, reason) from None
    return decode(data, path)


def _from_parts(
    described: dict[str, Any], tensors: dict[str, Array], digest: str, source: Path | str
) -> Checkpoint:
    if described["version"] is True or described["version"] != VERSION:
        written = f"has format version {described['version']!r:.40}"
        raise CheckpointError(source, f"{written}, this program reads {VERSION}: upgrade Charloom")
    step, text_sha256, characters = (described[name] for name in ("step", "text_sha256", "vocabulary"))
    if not _is_step(step):
        raise ValueError(f"step must be a whole number from 0 to {MAX_STEP}. Given: {step!r:.40}")
    if not isinstance(text_sha256, str) or not isinstance(characters, str):
        raise ValueError("text_sha256 and vocabulary must be strings")
    config = RunConfig.from_dict(described["config"])
    vocabulary = Vocabulary(characters)
    shapes = network_config(config, len(vocabulary)).shapes()
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name} has shape {tensors[name].shape}, its configuration says {shape}")
        if tensors[name].dtype != np.float32:
            raise ValueError(f"{name} has the type {tensors[name].dtype}, not float32")
        if not np.isfinite(tensors[name]).all():
            raise ValueError(f"{name} holds values that are not finite")
    return Checkpoint(
        config=config,
        vocabulary=vocabulary,
        step=step,
        parameters=np.concatenate([tensors.pop(name).ravel() for name in shapes]),
        text_sha256=text_sha256,
        tensors=tensors,
        progress=_checked_progress(described["progress"]),
        digest=digest,
    )


def _checked_progress(progress: Any) -> dict[str, Any]:
    """Returns `progress` if its known fields are valid; raises ValueError otherwise."""
    if not isinstance(progress, dict):
        raise ValueError(f"progress must be an object. Given: {progress!r:.40}")
    for name, fits in PROGRESS.items():
        if name in progress and not fits(progress[name]):
            raise ValueError(f"progress.{name} is invalid. Given: {progress[name]!r:.40}")
    return progress


def _is_step(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_STEP


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -sys.float_info.max <= value <= sys.float_info.max


def _is_loss(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_guard(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _is_number(part) if name in ("sum", "step") else type(part) is bool or _is_loss(part)
        for name, part in value.items()
    )


def _is_rollbacks(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(part, list)
        and len(part) == 3
        and _is_step(part[0])
        and _is_step(part[1])
        and _is_loss(part[2])
        for part in value
    )


PROGRESS: dict[str, Callable[[Any], bool]] = {
    "seconds": lambda value: _is_number(value) and value >= 0,
    "loss": _is_loss,
    "smooth_loss": _is_loss,
    "assignment_loss": _is_loss,
    "first_loss": _is_loss,
    "best_loss": _is_loss,
    "best_step": _is_step,
    "best": _is_guard,
    "as_of": _is_step,
    "loss_guard": _is_guard,
    "held_out_guard": _is_guard,
    "rollbacks": _is_rollbacks,
    "random_state": lambda value: isinstance(value, dict),
}


def _metadata(data: bytes, source: Path | str) -> str:
    """The `charloom` entry of a safetensors header, which is 8 bytes of length, then JSON."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        if MAX_HEADER < length <= len(data):
            raise CheckpointError(source, f"has a header of {length} bytes; at most {MAX_HEADER} are read")
        metadata = json.loads(data[8 : 8 + length] if length <= len(data) else b"").get("__metadata__", {})
    except CheckpointError:
        raise
    except Exception:
        raise CheckpointError(source, "is not a safetensors file, or its header is damaged") from None
    if not isinstance(metadata, dict) or not isinstance(metadata.get(KEY), str):
        raise CheckpointError(source, "is a safetensors file, but not a Charloom checkpoint")
    return str(metadata[KEY])


def _digest(described: str, tensors: dict[str, Array]) -> str:
    digest = hashlib.sha256(described.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()
