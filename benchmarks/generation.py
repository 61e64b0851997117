"""Characters a second within the process, 1 to 256 texts at once, beside PyTorch with the same weights.

    python -m benchmarks.generation [--rounds 7]

Both sample at temperature 1, in one thread. Each round times both in turn; medians over rounds. The texts of
more than one batch's width are written as the server does: several batches, a block of each in turn.
"""

import argparse
import statistics
import time

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import report
from benchmarks.torch_generation import TorchWriter
from model.config import PRESETS
from model.generation import Batch, Decoder, Row
from model.network import Network, NetworkConfig
from model.vocabulary import Vocabulary

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CHARACTERS = 65
CHARACTERS_A_ROUND = 60_000  # of all texts together; each has at least 200, as a request's


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
    decoder, peer = Decoder(network), TorchWriter(network)
    for rows in ROWS:
        length = max(200, min(5000, CHARACTERS_A_ROUND // rows))
        own_rates, peer_rates = [], []
        for index in range(rounds + 1):
            own = rate(lambda n, t: write(decoder, vocabulary, n, t), rows, length)
            other = rate(peer.write, rows, max(100, length // 4))
            if index:  # the first is to warm up
                own_rates.append(own)
                peer_rates.append(other)
        ratios = [own / other for own, other in zip(own_rates, peer_rates, strict=True)]
        own, other = statistics.median(own_rates), statistics.median(peer_rates)
        yield label, rows, f"{own:,.0f}", f"{other:,.0f}", f"{statistics.median(ratios):.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with threadpool_limits(1):
        rows = [row for network in networks() for row in measure(*network, arguments.rounds)]
    head = ("network", "texts at once", "Charloom, characters/s", "PyTorch, characters/s", "ratio")
    environment = report.environment("numpy", "torch")
    report.save("generation", "\n\n".join(["# Generation", environment, report.table(head, rows)]))


if __name__ == "__main__":
    main()
