"""Text generation: advances many rows together, one character at a time.

A row's text depends only on its own settings, to the byte, whatever other rows are in the batch and whenever
they join and leave. docs/performance.md explains how.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.cells import Array
from model.decoder import WIDEST, Decoder, Lanes
from model.errors import ConfigError
from model.network import Network
from model.row import Row, start_character
from model.sampling import Sampler, SamplingConfig
from model.vocabulary import Vocabulary

__all__ = ["WIDEST", "Batch", "Decoder", "Generated", "Row", "generate", "start_character"]

BLOCK = 32  # maximum number of characters between two checks for rows that have ended or can join
MAX_LOGITS = 2**20  # logits of a block that are kept for rows with log-probabilities
PAGE = 256  # characters for which prompts and uniform numbers are copied into the arrays together

Step = Callable[[NDArray[np.intp]], None]
Pick = Callable[[Array, NDArray[np.intp]], None]


@dataclass(eq=False)
class _Place:
    """The schedule of a row, in ticks; each tick feeds one character to every row.

    The first character is fed at tick `joined`, the last one before tick `end`. An id has the number of the
    tick that feeds it, which is one more than that of the tick that chose it. `first_written` is the number
    of the first generated id, `taken` that of the next id to be passed to the row.
    """

    row: Row
    joined: int
    end: int
    first_written: int
    taken: int


class Batch:
    """Rows that advance together. Rows join and leave between blocks of characters.

    Ids, uniform numbers and prompts are kept in pages (PAGE, rows). A tick uses one line of each, so there is
    no per-row work within a page.

    Attributes:
        ticks: number of characters fed to every row so far.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.ticks = 0
        rows = decoder.lanes
        self._sampler = Sampler(decoder.network.config.vocabulary, rows, decoder.block)
        self._lanes = Lanes(decoder, self._sampler.logits)
        self._places: list[_Place | None] = []  # by lane
        self._base = 0  # tick of the page's first line
        self._ids = np.zeros((PAGE + 1, rows), np.intp)
        self._uniforms = np.zeros((PAGE, rows), np.float32)
        self._prompts = np.zeros((PAGE + 1, rows), np.intp)
        self._forced = np.zeros((PAGE + 1, rows), np.bool_)  # whether an id is the prompt's
        self._forced_end = 0  # no line of the page from this one on has forced ids
        self._scored: list[int] = []  # lanes of rows with log-probabilities
        self._changed = False
        self._runners: dict[int, tuple[Step, Pick]] = {}  # by number of lanes
        self._single_row = self._lanes.single_row(self._sampler)

    @property
    def rows(self) -> list[Row]:
        """The rows that have not ended."""
        return [place.row for place in self._places if place is not None]

    @property
    def free(self) -> int:
        """The number of rows that can join."""
        return self.decoder.widest - len(self._places) + self._places.count(None)

    def join(self, row: Row) -> None:
        """Adds a row that has not ended. Raises ConfigError if the batch is full."""
        if not self.free:
            raise ConfigError("rows", f"must be at most {self.decoder.widest}")
        if self.ticks == self._base + PAGE:
            self._turn_page()
        now, first_written = self.ticks, self.ticks + len(row.prompt)
        place = _Place(row, now, now + row.steps_left, first_written, first_written)
        lane = self._places.index(None) if None in self._places else len(self._places)
        self._sampler.put(lane, row.sampling, row.prompt)
        self._lanes.clear(lane)
        self._ids[now - self._base, lane] = row.prompt[0]
        self._lay_out(place, lane)
        self._places[lane : lane + 1] = [place]
        self._changed = True

    def leave(self, row: Row) -> None:
        """Removes a row that has not ended, without updating it."""
        for lane, place in enumerate(self._places):
            if place is not None and place.row is row:
                self._vacate(lane)

    def advance(self, limit: int = BLOCK) -> list[Row]:
        """Feeds up to `limit` characters to every row. Removes the rows that end, and returns them."""
        self._close_gaps()
        if not self._places:
            return []
        if self.ticks == self._base + PAGE:
            self._turn_page()
        if self._changed:
            self._sampler.prepare(len(self._places))
            self._scored = [lane for lane, row in enumerate(self.rows) if row.logprobs is not None]
            self._changed = False
        count = self._block(limit)
        logits = self._run(self.ticks - self._base, count)
        self.ticks += count
        if logits is not None:
            self._score(logits)
        ended = []
        for lane, place in enumerate(self._places):
            if place is not None and (place.end <= self.ticks or place.row.watched):
                self._hand_over(place, lane)
                if place.row.finish_reason is not None:
                    ended.append(place.row)
                    self._vacate(lane)
        return ended

    def _block(self, limit: int) -> int:
        """The number of characters to feed in the next block.

        The block stops where the first row ends if that is in its second half. Otherwise it continues, and
        what is computed for that row after its end is discarded.
        """
        left = [place.end - self.ticks for place in self._places if place is not None]
        count = min(limit, self._base + PAGE - self.ticks, max(left))
        if self._scored:
            count = max(1, min(count, MAX_LOGITS // (len(self._scored) * self._sampler.logits.shape[1])))
        return min(left) if count / 2 <= min(left) < count else count

    def _run(self, at: int, count: int) -> Array | None:
        """Runs the page's lines `at` to `at + count`; the logits (count, N, K) of the `_scored` lanes."""
        rows, decoder = len(self._places), self.decoder
        plain = not (self._sampler.adjusts or self._sampler.filters or self._scored)
        alone = self._places[0] if rows == 1 and plain else None
        if alone is None:
            return self._run_together(at, count, decoder.lanes_for(rows))
        given = min(count, max(0, alone.first_written - 1 - self.ticks))
        now, after = slice(at, at + count), slice(at, at + count + 1)
        self._single_row.run(self._ids[after, 0], self._uniforms[now, 0], self._prompts[after, 0], given)
        return None

    def _run_together(self, at: int, count: int, width: int) -> Array | None:
        if width not in self._runners:
            self._runners[width] = self._lanes.stepper(width), self._sampler.picker(width)
        step, pick = self._runners[width]
        sampler, adjusts, scored, logits = self._sampler, self._sampler.adjusts, self._scored, None
        if scored:
            logits = np.empty((count, len(scored), sampler.logits.shape[1]), np.float32)
        now, after = slice(at, at + count), slice(at + 1, at + count + 1)
        lines = zip(
            self._ids[now, :width],
            self._uniforms[now, :width],
            self._ids[after, :width],
            self._prompts[after, :width],
            self._forced[after, :width],
            strict=True,
        )
        for line, (fed, uniforms, chosen, prompts, forced) in enumerate(lines):
            step(fed)
            if logits is not None:
                logits[line] = sampler.logits[scored]
            if adjusts:
                sampler.adjust()
            pick(uniforms, chosen)
            if at + line + 1 < self._forced_end:
                np.copyto(chosen, prompts, where=forced)
            if adjusts:
                sampler.count(chosen, forced)
        return logits

    def _score(self, logits: Array) -> None:
        """Passes the logits (count, N, K) of the last block to the rows in the N `_scored` lanes."""
        begin = self.ticks - len(logits)
        for index, lane in enumerate(self._scored):
            place = self._places[lane]
            if place is not None:
                end = min(self.ticks, place.end)
                ids = self._ids[begin + 1 - self._base : end + 1 - self._base, lane]
                place.row.score(logits[: len(ids), index], ids)

    def _hand_over(self, place: _Place, lane: int) -> None:
        """Passes new ids to a row."""
        upto = min(self.ticks, place.end)
        place.row.read = upto - place.joined
        if upto >= place.taken or upto == place.end:
            ids = self._ids[place.taken - self._base : upto + 1 - self._base, lane]
            place.taken += len(ids)
            place.row.accept(ids)

    def _lay_out(self, place: _Place, lane: int) -> None:
        """Writes a row's prompt and uniform numbers for the rest of the page."""
        base, end = self._base, self._base + PAGE
        start = place.first_written - 1  # the tick that chooses its first id
        low, high = max(start, self.ticks), min(place.end, end)
        if low < high:
            self._uniforms[low - base : high - base, lane] = place.row.uniforms[low - start : high - start]
        low, high = self.ticks + 1, min(place.first_written, end + 1)
        if low < high:
            prompt = place.row.prompt[low - place.joined : high - place.joined]
            self._prompts[low - base : high - base, lane] = prompt
            self._forced[low - base : high - base, lane] = True
            self._forced_end = max(self._forced_end, high - base)

    def _turn_page(self) -> None:
        places = [(lane, place) for lane, place in enumerate(self._places) if place is not None]
        for lane, place in places:
            self._hand_over(place, lane)
        self._ids[0] = self._ids[PAGE]
        self._base = self.ticks
        self._forced[:] = False
        self._forced_end = 0
        for lane, place in places:
            self._lay_out(place, lane)

    def _vacate(self, lane: int) -> None:
        self._places[lane] = None
        self._forced[self.ticks - self._base + 1 :, lane] = False
        self._changed = True

    def _close_gaps(self) -> None:
        """Moves the last rows into free lanes before them."""
        while None in self._places:
            last = self._places.pop()
            if last is not None:
                source, target = len(self._places), self._places.index(None)
                self._places[target] = last
                self._sampler.move(source, target)
                self._lanes.move(source, target)
                arrays: list[Array] = [self._ids, self._uniforms, self._prompts, self._forced]
                for array in arrays:
                    array[:, target] = array[:, source]
                self._forced[:, source] = False


@dataclass(frozen=True)
class Generated:
    """A generated text; `finish_reason` is "length" or "stop"."""

    text: str
    ids: list[int]
    finish_reason: str


def generate(
    network: Network,
    vocabulary: Vocabulary,
    prompt: str,
    length: int,
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    stop: Sequence[str] = (),
) -> Generated:
    """Generates up to `length` characters after `prompt`, with the same bytes as in any batch.

    Raises UnknownCharacterError if the prompt has characters outside the vocabulary, ConfigError for invalid
    settings.
    """
    row = Row(vocabulary, prompt, length, sampling, seed, stop=stop)
    batch = Batch(Decoder(network))
    if row.finish_reason is None:
        batch.join(row)
    while row.finish_reason is None:
        batch.advance()
    return Generated(row.text, row.ids, row.finish_reason)
