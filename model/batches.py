"""Ids -> windows: B contiguous streams through the text, cut into sequences of T characters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import TextError

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Window:
    """One update's characters.

    Attributes:
        inputs, targets: ids (T, B); targets are the inputs one character on.
        epoch: passes through the text completed before this window.
        reset: the streams start afresh here, so the carried state must be zeroed.
    """

    inputs: Ids
    targets: Ids
    epoch: int
    reset: bool


class Batches:
    """The windows of a text in order: update n's window is a function of n alone, so a position is a number.

    The text is cut into B streams of equal length, which are read side by side; the state carried from one
    window to the next stays true to its stream until all of them end together and a new epoch begins. Up to
    T*B characters at the end, too few for another window, are left out. With B = 1 this is the assignment's
    walk through the book.
    """

    def __init__(self, ids: Ids, sequence_length: int, streams: int) -> None:
        self.sequence_length = sequence_length
        self.windows_per_epoch = windows_per_epoch(len(ids), sequence_length, streams)
        length = self.windows_per_epoch * sequence_length + 1
        starts = np.arange(streams) * ((len(ids) - 1) // streams)
        # time first, so that a window, and the same one character on, are plain slices
        self._streams = np.stack([ids[start : start + length] for start in starts], axis=1)

    def window(self, update: int) -> Window:
        """The window of update number `update`, counted from 0."""
        epoch, index = divmod(update, self.windows_per_epoch)
        start = index * self.sequence_length
        end = start + self.sequence_length
        return Window(self._streams[start:end], self._streams[start + 1 : end + 1], epoch, reset=index == 0)

    def unigram_costs(self) -> NDArray[np.float64]:
        """What the characters' own frequencies give for each window of an epoch, (W,), nats per character."""
        targets = self._streams[1:]
        counts = np.bincount(targets.ravel())
        costs = -np.log(np.maximum(counts, 1) / targets.size).astype(np.float32)
        means: NDArray[np.float64] = (
            costs[targets].reshape(self.windows_per_epoch, -1).mean(axis=1, dtype=np.float64)
        )
        return means


def windows_per_epoch(characters: int, sequence_length: int, streams: int) -> int:
    """How many windows so many characters make. Raises TextError if there is not one."""
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
    """The first part to train on and the last `validation_fraction` held out."""
    held_out = int(len(ids) * validation_fraction)
    return ids[: len(ids) - held_out], ids[len(ids) - held_out :]
