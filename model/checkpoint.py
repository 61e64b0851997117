"""A checkpoint: one safetensors file with all that serving and an exact resume need. Never pickle.

Tensors: the parameters under their names; `optimizer.*`, `state` (carried hidden state), `best` and, of an
ensemble, `members`.
Metadata: one entry, `charloom`: a sha256 over all the rest, a space, and a JSON text with format version,
configuration, vocabulary, position and random state. So a file proves its own wholeness, and, with but one
entry to order, the same checkpoint is always the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from model.cells import Array
from model.config import RunConfig
from model.ensemble import network_config
from model.errors import CharloomError, CheckpointError
from model.network import Network
from model.vocabulary import Vocabulary

KEY = "charloom"
VERSION = 1
MAX_BYTES = 2 * 1024**3


@dataclass
class Checkpoint:
    """A run after `step` updates.

    Attributes:
        parameters: flat (P,), as in `Network.flat`.
        tensors: what only a resume needs: `optimizer.*`, `state` (L, S, B, M*H), `best` (P,), and
            `members` (M, P') if there are several; may be empty.
        progress: losses, elapsed seconds, random state: plain JSON values.
        text_sha256: of the text (UTF-8) it was trained on.
        digest: sha256 of header and tensors, set by `encode` and `decode`.
    """

    config: RunConfig
    vocabulary: Vocabulary
    step: int
    parameters: Array
    text_sha256: str
    tensors: dict[str, Array] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    digest: str = ""

    def network(self) -> Network:
        """The network at this step."""
        return Network(network_config(self.config, len(self.vocabulary)), self.parameters)


def encode(checkpoint: Checkpoint) -> bytes:
    """The file's bytes; sets `checkpoint.digest`."""
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
        }
    )
    checkpoint.digest = _digest(described, tensors)
    return save_tensors(tensors, metadata={KEY: f"{checkpoint.digest} {described}"})


def decode(data: bytes, source: Path | str = "checkpoint") -> Checkpoint:
    """The checkpoint in a file's bytes. Raises CheckpointError, with the reason, for anything else."""
    digest, _, described = _metadata(data, source).partition(" ")
    try:
        tensors = load_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(source, f"is torn or damaged: {error}") from None
    if digest != _digest(described, tensors):
        raise CheckpointError(source, "does not match its own checksum: it is damaged or was changed")
    try:
        return _from_parts(json.loads(described), tensors, digest, source)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, CharloomError) as error:
        raise CheckpointError(source, f"does not describe a run that this program knows: {error}") from None


def load(path: Path) -> Checkpoint:
    """The checkpoint in a file. Raises CheckpointError, with the reason, if it cannot be used.

    Links are refused: one could point out of the folder that it stands in.
    """
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(path, "is a link, a folder or a device, not a file of its own")
        if status.st_size > MAX_BYTES:
            raise CheckpointError(path, f"is larger than {MAX_BYTES} bytes, the most that is read")
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            data = file.read(MAX_BYTES)
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror}") from None
    return decode(data, path)


def _from_parts(
    described: dict[str, Any], tensors: dict[str, Array], digest: str, source: Path | str
) -> Checkpoint:
    if described["version"] != VERSION:
        raise CheckpointError(
            source,
            f"has format version {described['version']}, this program reads {VERSION}: upgrade Charloom",
        )
    config = RunConfig.from_dict(described["config"])
    vocabulary = Vocabulary(described["vocabulary"])
    shapes = network_config(config, len(vocabulary)).shapes()
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name} has shape {tensors[name].shape}, its configuration says {shape}")
        if not np.isfinite(tensors[name]).all():
            raise ValueError(f"{name} holds values that are not finite")
    return Checkpoint(
        config=config,
        vocabulary=vocabulary,
        step=int(described["step"]),
        parameters=np.concatenate([tensors.pop(name).ravel() for name in shapes]),
        text_sha256=described["text_sha256"],
        tensors=tensors,
        progress=described["progress"],
        digest=digest,
    )


def _metadata(data: bytes, source: Path | str) -> str:
    """This project's entry in a safetensors header, which is 8 bytes of length, then JSON."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (struct.error, ValueError, AttributeError, RecursionError):
        raise CheckpointError(source, "is not a safetensors file, or its beginning is damaged") from None
    if not isinstance(metadata, dict) or not isinstance(metadata.get(KEY), str):
        raise CheckpointError(source, "is a safetensors file, but not a checkpoint of Charloom")
    return str(metadata[KEY])


def _digest(described: str, tensors: dict[str, Array]) -> str:
    digest = hashlib.sha256(described.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()
