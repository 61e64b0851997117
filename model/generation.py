"""Writes text: advances many rows at once, one character at a time.

What a row writes depends on its own task alone, to the byte, whatever rows stand beside it and whenever they
join and leave; docs/performance.md says what that takes.
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

BLOCK = 32  # characters between two looks at who has finished and who wants to join
TOLD_ELEMENTS = 2**20  # most logits kept at a time for rows that are told of them
PAGE = 256  # characters; what is known of them beforehand is laid out for all rows a page at a time

Step = Callable[[NDArray[np.intp]], None]
Pick = Callable[[Array, NDArray[np.intp]], None]


@dataclass(eq=False)
class _Place:
    """A row's times, in ticks: its first character is fed at `joined`, its last one before `end`.

    Ids are counted likewise: what a tick chooses is fed at the next and has that one's number. `taken` is the
    number of the next id to be handed to the row.
    """

    row: Row
    joined: int
    end: int
    first_written: int
    taken: int


class Batch:
    """Rows that advance together. Rows join and leave between two blocks of characters.

    Ids, uniform numbers and prompts are laid out in pages (PAGE, rows): a tick takes one line of each,
    however many texts there are, and between its first block and its last a text costs nothing more.

    Attributes:
        ticks: characters fed to every row so far.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.ticks = 0
        rows = decoder.lanes
        self._sampler = Sampler(decoder.network.config.vocabulary, rows, decoder.block)
        self._lanes = Lanes(decoder, self._sampler.logits)
        self._places: list[_Place | None] = []  # by lane
        self._base = 0  # tick at which the page begins
        self._ids = np.zeros((PAGE + 1, rows), np.intp)
        self._uniforms = np.zeros((PAGE, rows), np.float32)
        self._prompts = np.zeros((PAGE + 1, rows), np.intp)
        self._forced = np.zeros((PAGE + 1, rows), np.bool_)  # where ids are the prompts'
        self._forced_end = 0  # first line of the page from which on nothing is forced
        self._told: list[int] = []  # lanes whose log-probabilities are asked for
        self._changed = False
        self._runners: dict[int, tuple[Step, Pick]] = {}  # by width
        self._single_row = self._lanes.single_row(self._sampler)

    @property
    def rows(self) -> list[Row]:
        """The rows that have not ended."""
        return [place.row for place in self._places if place is not None]

    @property
    def free(self) -> int:
        """How many more rows can join."""
        return self.decoder.widest - len(self._places) + self._places.count(None)

    def join(self, row: Row) -> None:
        """Adds a row that has not ended; it starts from the zero state."""
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
        """Takes a row out that has not ended; it is not brought up to date."""
        for lane, place in enumerate(self._places):
            if place is not None and place.row is row:
                self._vacate(lane)

    def advance(self, most: int = BLOCK) -> list[Row]:
        """Feeds up to `most` characters to every row; rows that end leave and are returned."""
        self._close_gaps()
        if not self._places:
            return []
        if self.ticks == self._base + PAGE:
            self._turn_page()
        if self._changed:
            self._sampler.prepare(len(self._places))
            self._told = [lane for lane, row in enumerate(self.rows) if row.logprobs is not None]
            self._changed = False
        count = self._block(most)
        logits = self._run(self.ticks - self._base, count)
        self.ticks += count
        if logits is not None:
            self._tell(logits)
        ended = []
        for lane, place in enumerate(self._places):
            if place is not None and (place.end <= self.ticks or place.row.watched):
                self._hand_over(place, lane)
                if place.row.finish_reason is not None:
                    ended.append(place.row)
                    self._vacate(lane)
        return ended

    def _block(self, most: int) -> int:
        """How far to run: a row that ends early in a block is run on in vain, one that ends late ends it."""
        left = [place.end - self.ticks for place in self._places if place is not None]
        count = min(most, self._base + PAGE - self.ticks, max(left))
        if self._told:
            count = max(1, min(count, TOLD_ELEMENTS // (len(self._told) * self._sampler.logits.shape[1])))
        return min(left) if count / 2 <= min(left) < count else count

    def _run(self, at: int, count: int) -> Array | None:
        """Runs the page's lines `at` to `at + count`; logits (count, told, K) if some row is to be told."""
        rows, decoder = len(self._places), self.decoder
        plain = not (self._sampler.adjusts or self._sampler.filters or self._told)
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
        sampler, adjusts, told, logits = self._sampler, self._sampler.adjusts, self._told, None
        if told:
            logits = np.empty((count, len(told), sampler.logits.shape[1]), np.float32)
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
                logits[line] = sampler.logits[told]
            if adjusts:
                sampler.adjust()
            pick(uniforms, chosen)
            if at + line + 1 < self._forced_end:
                np.copyto(chosen, prompts, where=forced)
            if adjusts:
                sampler.count(chosen, forced)
        return logits

    def _tell(self, logits: Array) -> None:
        """Gives the logits (count, told, K) of the last block to the rows that asked for them."""
        begin = self.ticks - len(logits)
        for index, lane in enumerate(self._told):
            place = self._places[lane]
            if place is not None:
                end = min(self.ticks, place.end)
                ids = self._ids[begin + 1 - self._base : end + 1 - self._base, lane]
                place.row.tell(logits[: len(ids), index], ids)

    def _hand_over(self, place: _Place, lane: int) -> None:
        """Brings a row up to date."""
        upto = min(self.ticks, place.end)
        place.row.read = upto - place.joined
        if upto >= place.taken or upto == place.end:
            ids = self._ids[place.taken - self._base : upto + 1 - self._base, lane]
            place.taken += len(ids)
            place.row.accept(ids)

    def _lay_out(self, place: _Place, lane: int) -> None:
        """Writes what is known of a row's future on the rest of the page."""
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
        """Moves the last rows into the lanes that nobody has taken since they were left."""
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
    """A finished text."""

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
    """Up to `length` characters after `prompt`: the same bytes as in any batch.

    Raises UnknownCharacterError for a prompt outside the vocabulary, ConfigError for impossible settings.
    """
    row = Row(vocabulary, prompt, length, sampling, seed, stop=stop)
    batch = Batch(Decoder(network))
    if row.finish_reason is None:
        batch.join(row)
    while row.finish_reason is None:
        batch.advance()
    return Generated(row.text, row.ids, row.finish_reason)
