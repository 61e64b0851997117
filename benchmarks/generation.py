"""Characters per second within one process, for 1 to 256 texts; PyTorch and JAX use the same weights.

    python -m benchmarks.generation [--rounds 7]

All sample at temperature 1, in one thread. Each round times all of them in turn; the results are medians over
the rounds. More texts than fit into one batch are written as in the server: in several batches, a block of
each in turn.
"""

import argparse
import statistics
import time

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import report
from benchmarks.jax_generation import JaxWriter
from benchmarks.torch_generation import TorchWriter
from model.config import PRESETS
from model.generation import Batch, Decoder, Row
from model.network import Network, NetworkConfig
from model.vocabulary import Vocabulary

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CHARACTERS = 65
CHARACTERS_A_ROUND = 60_000  # of all texts together; each text has at least 200, like a request


def networks():
    vocabulary = Vocabulary("".join(chr(ord("0") + i) for i in range(CHARACTERS)))
    for label, cell, hidden, preset in (
        ("vanilla RNN, hidden 100", "elman", 100, "classic"),
        ("GRU, hidden 256", "gru", 256, "gru"),
    ):
        config = NetworkConfig(CHARACTERS, hidden, 1, cell)
        yield label, vocabulary, Network.initialise(config, PRESETS[preset], np.random.default_rng(0))


def write(decoder, vocabulary, rows, length):
    texts = [Row(vocabulary, "0", length, seed=seed) for seed in range(rows)]
    batches = []
    for at in range(0, rows, decoder.widest):
        batch = Batch(decoder)
        for text in texts[at : at + decoder.widest]:
            batch.join(text)
        batches.append(batch)
    while any(batch.rows for batch in batches):
        for batch in batches:
            batch.advance()
    assert all(len(text.ids) == length for text in texts)


def rate(call, rows, length):
    start = time.perf_counter()
    call(rows, length)
    return rows * length / (time.perf_counter() - start)


def measure(label, vocabulary, network, rounds):
    decoder, torch, jax = Decoder(network), TorchWriter(network), JaxWriter(network)
    for rows in ROWS:
        length = max(200, min(5000, CHARACTERS_A_ROUND // rows))
        contenders = (
            (lambda n, t: write(decoder, vocabulary, n, t), length),
            (torch.write, max(100, length // 4)),
            (jax.write, length),
        )
        # the first round warms up and compiles
        measured = [[rate(call, rows, t) for call, t in contenders] for _ in range(rounds + 1)][1:]
        medians = [statistics.median(rates) for rates in zip(*measured, strict=True)]
        ratios = [statistics.median(rates[0] / rates[peer] for rates in measured) for peer in (1, 2)]
        yield label, rows, *(f"{median:,.0f}" for median in medians), *(f"{ratio:.1f}" for ratio in ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with threadpool_limits(1):
        rows = [row for network in networks() for row in measure(*network, arguments.rounds)]
    head = ("network", "texts at once", "Charloom, characters/s", "PyTorch", "JAX, compiled")
    head = (*head, "ratio to PyTorch", "ratio to JAX")
    environment = report.environment("numpy", "torch", "jax")
    report.save("generation", "\n\n".join(["# Generation", environment, report.table(head, rows)]))


if __name__ == "__main__":
    main()
