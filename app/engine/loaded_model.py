"""A checkpoint in memory, prepared for generation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.checkpoint import Checkpoint
from model.config import RunConfig
from model.generation import Decoder
from model.network import Network
from model.vocabulary import Vocabulary


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint in memory. It never changes, so a newer checkpoint does not affect requests that use it.

    Attributes:
        decoder: the network, prepared for generation.
        progress: losses (nats per character) and training seconds at `step`.
    """

    run: str
    step: int
    path: Path
    digest: str
    network: Network
    decoder: Decoder
    vocabulary: Vocabulary
    config: RunConfig
    progress: dict[str, Any]

    @property
    def id(self) -> str:
        return f"{self.run}@{self.step}"

    @property
    def size(self) -> int:
        """Bytes of memory of the network and the decoder."""
        return self.network.flat.nbytes + self.decoder.size


def prepared(run: str, path: Path, checkpoint: Checkpoint) -> LoadedModel:
    """The model in a checkpoint, without what only a resume needs. Makes the weights read-only."""
    checkpoint.parameters.flags.writeable = False
    network = checkpoint.network()
    progress = {name: value for name, value in checkpoint.progress.items() if name != "random_state"}
    progress |= checkpoint.losses
    return LoadedModel(
        run=run,
        step=checkpoint.step,
        path=path,
        digest=checkpoint.digest,
        network=network,
        decoder=Decoder(network),
        vocabulary=checkpoint.vocabulary,
        config=checkpoint.config,
        progress=progress,
    )
