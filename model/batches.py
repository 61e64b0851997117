"""Batches of training data: B contiguous streams of the text, in windows of T characters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import TextError

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Window:
    """The characters of one update.

    Attributes:
        inputs, targets: ids (T, B); each target is the character after its input.
        epoch: completed passes through the text.
        reset: whether an epoch starts here, so that the carried state must be zeroed.
    """

    inputs: Ids
    targets: Ids
    epoch: int
    reset: bool


class Batches:
    """The windows of a text. The window of an update depends only on the update's number.

    The text is cut into B streams of equal length that are read in parallel. State is carried from window to
    window within each stream; all streams end together, and a new epoch begins. Up to T*B characters at the
    end, too few for another window, are left out. B = 1 reads the text in the same order as the assignment.

    Args:
        ids: the text, (N,).
        sequence_length: T.
        streams: B.

    Raises TextError if the text is too short for one window.
    """

    def __init__(self, ids: Ids, sequence_length: int, streams: int) -> None:
        self.sequence_length = sequence_length
        self.windows_per_epoch = windows_per_epoch(len(ids), sequence_length, streams)
        length = self.windows_per_epoch * sequence_length + 1
        starts = np.arange(streams) * ((len(ids) - 1) // streams)
        # time is the first axis, so that inputs and targets are plain slices
        self._streams = np.stack([ids[start : start + length] for start in starts], axis=1)

    def window(self, update: int) -> Window:
        """The window of update `update`, counted from 0."""
        epoch, index = divmod(update, self.windows_per_epoch)
        start = index * self.sequence_length
        end = start + self.sequence_length
        return Window(self._streams[start:end], self._streams[start + 1 : end + 1], epoch, reset=index == 0)

    def unigram_costs(self) -> NDArray[np.float64]:
        """The unigram loss of each window of an epoch, (W,), in nats per character."""
        targets = self._streams[1:]
        counts = np.bincount(targets.ravel())
        costs = -np.log(np.maximum(counts, 1) / targets.size).astype(np.float32)
        means: NDArray[np.float64] = (
            costs[targets].reshape(self.windows_per_epoch, -1).mean(axis=1, dtype=np.float64)
        )
        return means


def windows_per_epoch(characters: int, sequence_length: int, streams: int) -> int:
    """The number of windows in a text of `characters` characters. Raises TextError if there are none."""
    windows = ((characters - 1) // streams) // sequence_length
    if windows < 1:
        needed = sequence_length * streams + 1
        raise TextError(
            f"the text to train on must have at least {needed} characters (streams x sequence_length + 1 = "
            f"{streams} x {sequence_length} + 1). Given: {characters}. Give a longer text or use fewer "
            f"streams"
        )
    return windows


def split(ids: Ids, validation_fraction: float) -> tuple[Ids, Ids]:
    """The training part of a text and the held-out part, its last `validation_fraction`."""
    held_out = int(len(ids) * validation_fraction)
    return ids[: len(ids) - held_out], ids[len(ids) - held_out :]
