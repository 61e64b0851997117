"""Writes text: primes and advances many rows, one character at a time.

A `Decoder` is a network laid out for it, a `Generation` one row's task and outcome, a `Batch` advances rows.
What a row writes depends on its own task alone, to the byte, whatever rows stand beside it and whenever they
join and leave; docs/performance.md says what that takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.cells import Array
from model.errors import ConfigError
from model.loss import log_softmax
from model.network import Network
from model.sampling import SamplingBatch, SamplingConfig, draw_uniforms, random_stream
from model.vocabulary import Vocabulary

WIDEST = 64
COLUMNS = 16  # the BLAS kernels treat whole blocks of so many columns alike at every width
BLOCK = 16  # characters between two looks at who has finished and who wants to join


class Decoder:
    """A network in float32, laid out for generation. Immutable; any number of batches may share it.

    After each layer comes one product only: [W | next], the recurrent half of the layer's next step beside
    the layer above's input or the logits. The matrices are padded with zero columns to whole blocks, because
    at such sizes a row's product is the same to the bit at any width from two rows up; where a BLAS does not
    keep that promise, which is tried out here, all products are made at the one full width.

    Attributes:
        narrowest: fewest rows that a product may be made of.
        widest: most rows of a batch.
    """

    def __init__(self, network: Network, widest: int = WIDEST) -> None:
        self.network = network = network.astype(np.float32)
        self.widest = widest
        config, p = network.config, network.parameters
        self.width = network.cell.gates * config.hidden
        self.embedding = p["layer0.U"] + p["layer0.b"]
        nexts = [p[f"layer{layer}.U"] for layer in range(1, config.layers)] + [p["V"]]
        self.biases = [p[f"layer{layer}.b"] for layer in range(1, config.layers)] + [p["c"]]
        self.products = [_fuse(p[f"layer{layer}.W"], after) for layer, after in enumerate(nexts)]
        self.narrowest = self._narrowest()

    def _narrowest(self) -> int:
        """2 if every width from 2 up gives the bytes of the widest, else the widest."""
        rows = np.random.default_rng(0).standard_normal((self.widest, self.network.config.hidden), np.float32)
        for product in self.products:
            whole = rows @ product
            for width in range(2, self.widest):
                first, last = rows[:width] @ product, rows[-width:] @ product
                if not (np.array_equal(first, whole[:width]) and np.array_equal(last, whole[-width:])):
                    return self.widest
        return min(2, self.widest)


class Generation:
    """One row: a prompt to read, then up to `length` characters to write.

    Attributes:
        ids: what it has written so far; `finish_reason`: None, "length" or "stop".
        prompt_logprobs: log p of each prompt character after the first, if `logprobs` is given.
        logprobs_of: log p of each character written, before temperature and filters.
        top: for both, in order, the `logprobs` likeliest (id, log p) at that place.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt: str | Sequence[int],
        length: int,
        sampling: SamplingConfig | None = None,
        seed: int = 0,
        choice: int = 0,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
    ) -> None:
        if length < 0:
            raise ConfigError("length", f"must be at least 0. Given: {length}")
        if any(not text for text in stop):
            raise ConfigError("stop", "must not hold an empty string")
        self.vocabulary, self.length, self.stop, self.logprobs = vocabulary, length, tuple(stop), logprobs
        self.sampling = sampling or SamplingConfig()
        self.prompt = _prompt_ids(vocabulary, prompt)
        self.uniforms = draw_uniforms(random_stream(seed, choice), self.sampling, length)
        self.ids: list[int] = []
        self.finish_reason: str | None = None
        self.prompt_logprobs: list[float] = []
        self.logprobs_of: list[float] = []
        self.top: list[list[tuple[int, float]]] = []
        self.read = 0  # characters fed to the network
        self.watched = bool(stop) or logprobs is not None  # its text must be known after every block
        self._text = ""
        self.released = 0  # characters that `release` has given out
        if self.steps_left == 0:
            self.finish_reason = "length"

    @property
    def steps_left(self) -> int:
        """Characters still to be fed until it ends, unless a stop string ends it before."""
        return max(len(self.prompt) + self.length - 1, 0) - self.read

    @property
    def text(self) -> str:
        """What it has written, without the stop string that ended it."""
        return self._text

    def release(self) -> str:
        """What has been written since the last call and can no longer turn out to begin a stop string."""
        end = len(self._text)
        if self.finish_reason is None:
            end = max(self.released, end - self._held_back())
        text, self.released = self._text[self.released : end], end
        return text

    def accept(self, ids: Sequence[int]) -> None:
        """Takes the next characters written, up to where a stop string or the length ends it."""
        searched_from = max(0, len(self._text) - max(map(len, self.stop), default=0))
        self.ids.extend(ids)
        self._text += self.vocabulary.decode(ids)
        ends = [at for at in (self._text.find(text, searched_from) for text in self.stop) if at >= 0]
        if ends:
            self._end_at(min(ends), "stop")
        elif len(self.ids) >= self.length:
            self._end_at(self.length, "length")

    def _end_at(self, count: int, reason: str) -> None:
        self.finish_reason = reason
        self._text = self._text[:count]
        del self.ids[count:], self.logprobs_of[count:], self.top[len(self.prompt_logprobs) + count :]

    def _held_back(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        longest = 0
        for stop in self.stop:
            for size in range(min(len(stop) - 1, len(self._text)), longest, -1):
                if self._text.endswith(stop[:size]):
                    longest = size
                    break
        return longest


class Batch:
    """Rows that advance together. Rows join and leave between two blocks of characters."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.rows: list[Generation] = []
        network, rows = decoder.network, decoder.widest
        config, cell = network.config, network.cell
        self._states = np.zeros((config.layers, cell.states, rows, config.hidden), np.float32)
        self._products = [np.zeros((rows, product.shape[1]), np.float32) for product in decoder.products]
        self._u = np.zeros((rows, decoder.width), np.float32)
        self._cache = np.zeros((cell.cached, rows, config.hidden), np.float32)
        self._ids = np.zeros(rows, np.intp)
        self._seen = np.zeros((rows, config.vocabulary), np.float32)
        self._generated = np.zeros((rows, config.vocabulary), np.float32)
        self._settings: SamplingBatch | None = None
        self.ticks = 0  # characters fed to every row so far

    @property
    def free(self) -> int:
        """How many more rows can join."""
        return self.decoder.widest - len(self.rows)

    def join(self, row: Generation) -> None:
        """Adds a row that has not ended; it starts from the zero state."""
        if not self.free:
            raise ConfigError("rows", f"must be at most {self.decoder.widest}")
        index = len(self.rows)
        self.rows.append(row)
        self._states[:, :, index] = 0
        for product in self._products:
            product[index] = 0  # h W of the zero state
        self._ids[index] = row.prompt[0]
        self._generated[index] = 0
        self._seen[index] = np.bincount(row.prompt, minlength=self._seen.shape[1])
        self._settings = None

    def leave(self, row: Generation) -> None:
        """Takes a row out, ended or not."""
        index, last = self.rows.index(row), len(self.rows) - 1
        self.rows[index] = self.rows[last]
        self.rows.pop()
        if index != last:
            self._states[:, :, index] = self._states[:, :, last]
            arrays: list[Array] = [*self._products, self._ids, self._generated, self._seen]
            for array in arrays:
                array[index] = array[last]
        self._settings = None

    def advance(self, most: int = BLOCK) -> list[Generation]:
        """Feeds up to `most` characters to every row; rows that end leave and are returned."""
        if not self.rows:
            return []
        count = min(most, min(row.steps_left for row in self.rows))
        written = self._run(count)
        self.ticks += count
        ended = []
        for index, row in enumerate(self.rows):
            skipped = max(0, len(row.prompt) - 1 - row.read)  # still the prompt's own characters
            row.read += count
            if skipped < count:
                row.accept(written[index, skipped:].tolist())
            if row.finish_reason is None and row.steps_left == 0:
                row.finish_reason = "length"  # nothing to write: the prompt was only read
            if row.finish_reason is not None:
                ended.append(row)
        for row in ended:
            self.leave(row)
        return ended

    def _run(self, count: int) -> NDArray[np.intp]:
        """Feeds `count` characters to every row; the ids that follow, written or the prompt's, (B, count)."""
        rows, width = len(self.rows), max(len(self.rows), self.decoder.narrowest)
        settings = self._settings
        if settings is None:
            idle = [SamplingConfig()] * (width - rows)
            settings = SamplingBatch.of(
                [row.sampling for row in self.rows] + idle, self.decoder.network.config.vocabulary
            )
            self._settings = settings
        uniforms, forced = self._plan(count, width)
        told = [index for index, row in enumerate(self.rows) if row.logprobs is not None]
        written = np.empty((width, count), np.intp)
        ids = self._ids[:width]
        step = self._steps(width)
        for t in range(count):
            logits = step(ids)
            raw = logits[told] if told else None
            if settings.adjusted.size:
                settings.adjust(logits, self._seen, self._generated)
            chosen = settings.pick(logits, uniforms[t])
            if forced is not None:
                np.copyto(chosen, forced[t], where=forced[t] >= 0)
            if settings.adjusted.size:
                self._count(chosen, forced[t] if forced is not None else None)
            if raw is not None:
                self._tell(told, raw, chosen, t)
            ids[:] = chosen
            written[:, t] = chosen
        return written[:rows]

    def _steps(self, width: int) -> Callable[[NDArray[np.intp]], Array]:
        """The network's step for `width` rows: ids (B,) -> logits (B, K), with all views made once."""
        decoder, cell = self.decoder, self.decoder.network.cell
        hidden, wide = decoder.network.config.hidden, decoder.width
        after = [min(wide, product.shape[1]) for product in self._products]
        u = self._u[:width]
        u_gates = _gates(u, cell.gates, hidden)
        cache = tuple(self._cache[:, :width])
        layers = []
        for layer, product in enumerate(self._products):
            rows = product[:width]
            size = decoder.network.config.vocabulary if layer == len(self._products) - 1 else wide
            states = tuple(self._states[layer, :, :width])
            layers.append(
                (
                    _gates(rows[:, :wide], cell.gates, hidden),
                    states,
                    decoder.products[layer],
                    rows,
                    rows[:, after[layer] : after[layer] + size],
                    decoder.biases[layer],
                )
            )
        logits = np.empty((width, decoder.network.config.vocabulary), np.float32)
        last = len(layers) - 1

        def step(ids: NDArray[np.intp]) -> Array:
            np.take(decoder.embedding, ids, axis=0, out=u, mode="clip")
            for index, (v_gates, states, product, out, onward, bias) in enumerate(layers):
                cell.step(u_gates, v_gates, states, states, cache)
                np.matmul(states[0], product, out=out)
                np.add(onward, bias, out=logits if index == last else u)
            return logits

        return step

    def _plan(self, count: int, width: int) -> tuple[Array, NDArray[np.intp] | None]:
        """Uniform numbers (count, B, 1), and the prompts' ids (count, B), -1 where a character is picked."""
        uniforms = np.zeros((count, width, 1), np.float32)
        forced = None
        for index, row in enumerate(self.rows):
            written = row.read - len(row.prompt) + 1
            skipped = max(0, -written)
            if skipped:
                if forced is None:
                    forced = np.full((count, width), -1, np.intp)
                prompt = row.prompt[row.read + 1 : row.read + 1 + count]
                forced[: len(prompt), index] = prompt
            part = row.uniforms[max(0, written) : max(0, written + count)]
            uniforms[skipped : skipped + len(part), index, 0] = part
        return uniforms, forced

    def _count(self, chosen: NDArray[np.intp], forced: NDArray[np.intp] | None) -> None:
        """Counts the characters just written; a prompt's were counted when its row joined."""
        picked = np.arange(len(chosen)) if forced is None else np.flatnonzero(forced < 0)
        self._seen[picked, chosen[picked]] += 1
        self._generated[picked, chosen[picked]] += 1

    def _tell(self, told: list[int], raw: Array, chosen: NDArray[np.intp], t: int) -> None:
        """Notes the log-probabilities of one step for the rows that asked for them."""
        for index, logprobs in zip(told, log_softmax(raw), strict=True):
            row = self.rows[index]
            of_prompt = row.read + t + 1 < len(row.prompt)
            (row.prompt_logprobs if of_prompt else row.logprobs_of).append(float(logprobs[chosen[index]]))
            likeliest = np.argsort(-logprobs, kind="stable")[: row.logprobs]
            row.top.append([(int(i), float(logprobs[i])) for i in likeliest])


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
    row = Generation(vocabulary, prompt, length, sampling, seed, stop=stop)
    batch = Batch(Decoder(network))
    if row.finish_reason is None:
        batch.join(row)
    while row.finish_reason is None:
        batch.advance()
    return Generated(row.text, row.ids, row.finish_reason)


def start_character(vocabulary: Vocabulary) -> str:
    """What an empty prompt starts from: a line break, or the first character where a text has none."""
    return "\n" if "\n" in vocabulary.characters else vocabulary.characters[0]


def _prompt_ids(vocabulary: Vocabulary, prompt: str | Sequence[int]) -> NDArray[np.integer]:
    if isinstance(prompt, str):
        return vocabulary.encode(prompt or start_character(vocabulary))
    ids = np.asarray(prompt if len(prompt) else vocabulary.encode(start_character(vocabulary)), np.int64)
    if ids.min() < 0 or ids.max() >= len(vocabulary):
        raise ConfigError("prompt", f"must hold ids from 0 to {len(vocabulary) - 1}")
    return ids


def _fuse(W: Array, after: Array) -> Array:
    """[W | after], with zero columns up to a whole block; each part's rows stay rows."""
    columns = W.shape[1] + after.shape[1]
    padded = np.zeros((len(W), -(-columns // COLUMNS) * COLUMNS), np.float32)
    padded[:, : W.shape[1]] = W
    padded[:, W.shape[1] : columns] = after
    return padded


def _gates(x: Array, gates: int, hidden: int) -> tuple[Array, ...]:
    return tuple(x[:, gate * hidden : (gate + 1) * hidden] for gate in range(gates))
