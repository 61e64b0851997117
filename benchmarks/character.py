"""Where the time of one text's character goes: the calls of `model/single_row.py`, each timed alone.

    python -m benchmarks.character [--rounds 9]

In one thread, on arrays of the shapes and places that the decoder uses; medians over rounds, which take the
calls in turn. A call alone in a loop finds its arrays in the cache and its branches predicted, so the calls
together take a little less than the character, which is measured as the decoder writes it.
"""

import argparse
import statistics
import time
from bisect import bisect_right
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import report
from benchmarks.generation import networks
from model import buffers
from model.cells import cut
from model.decoder import Decoder, Lanes
from model.generation import Batch, Row
from model.products import product
from model.sampling import Sampler

CALLS = 20_000  # of each in a round
LENGTH = 10_000  # characters of the whole text


def calls(decoder):
    """{what it does: the call}, in the order of a character."""
    config, cell = decoder.network.config, decoder.network.cell
    sampler = Sampler(config.vocabulary, decoder.lanes, decoder.block)
    lanes = Lanes(decoder, sampler.logits)
    multiplied = decoder.lanes_for(1)
    h, result = lanes.states[0, 0, :multiplied], lanes.products[0]
    state, wide = tuple(lanes.states[0, :, 0]), decoder.width
    gates = result[0, :wide].reshape(cell.gates, config.hidden)
    cache = cut(buffers.zeros((cell.cached, config.hidden), np.float32), cell.kept)
    scratch = buffers.zeros((config.hidden,), np.float32)
    likeliest = sampler.likeliest[0, 0, ...]
    # in place the numbers would grow from call to call, and those that are none take longer
    logits, shifted = np.random.default_rng(0).standard_normal((2, config.vocabulary), np.float32)
    sampler.logits[:] = np.exp(logits)
    sampler.cumulator(multiplied)()
    cumulative = memoryview(sampler.cumulative[0].data).cast("B").cast("f")
    onward, bias = result[0, wide : wide + config.vocabulary], decoder.biases[0]
    return {
        "the cell's equations": partial(
            cell.step, decoder.embedding_halves[0], cut(gates, cell.halves), state, state, cache, scratch
        ),
        "product of h with W and V": product(
            h, decoder.products[0], result[:multiplied], decoder.row_blocks(len(h), 0)
        ),
        "addition of c": partial(np.add, onward, bias, shifted),
        "likeliest character": logits.argmax,
        "subtraction of its logit": partial(np.subtract, logits, likeliest, shifted),
        "exp": partial(np.exp, logits, shifted),
        "cumulative sum": sampler.cumulator(multiplied),
        "search in it": partial(bisect_right, cumulative, cumulative[-1] / 2),
    }


def write(decoder, vocabulary):
    batch, row = Batch(decoder), Row(vocabulary, "0", LENGTH)
    batch.join(row)
    while row.finish_reason is None:
        batch.advance()


def microseconds(call, count):
    start = time.perf_counter()
    for _ in range(count):
        call()
    return 1e6 * (time.perf_counter() - start) / count


def measure(decoder, vocabulary, rounds):
    """{what: microseconds}, with those of an empty loop taken off."""
    empty = object
    rounds = [
        {what: microseconds(call, CALLS) for what, call in calls(decoder).items()}
        | {
            "": microseconds(empty, CALLS),
            "whole": microseconds(partial(write, decoder, vocabulary), 1) / LENGTH,
        }
        for _ in range(rounds + 1)
    ][1:]
    medians = {what: statistics.median(one[what] for one in rounds) for what in rounds[0]}
    loop, whole = medians.pop(""), medians.pop("whole")
    parts = {what: max(0.0, taken - loop) for what, taken in medians.items()}
    return parts | {
        "the rest: the interpreter, and what the caches do not hold": whole - sum(parts.values()),
        "a character": whole,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    labels, columns = [], []
    with threadpool_limits(1):
        for label, vocabulary, network in networks():
            labels.append(f"{label}, µs")
            columns.append(measure(Decoder(network), vocabulary, arguments.rounds))
    rows = [(what, *(f"{column[what]:.2f}" for column in columns)) for what in columns[0]]
    text = ["# A character", report.environment("numpy"), report.table(("call", *labels), rows)]
    report.save("character", "\n\n".join(text))


if __name__ == "__main__":
    main()
