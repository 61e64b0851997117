"""Speed of training, compared with PyTorch, JAX and, for the update of the assignment, plain NumPy.

    python -m benchmarks.training [--rounds 5] [--quick]

Each round times every contender in turn, so that a drift of the machine affects all of them; the results are
medians over the rounds. A measurement that other processes disturb is repeated a few times; the table shows
the share of the cores that they used.
"""

import argparse
import statistics
import subprocess
import sys
import time
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import report
from benchmarks.jax_training import jax_update
from benchmarks.own_training import CHARACTERS, ours, random_text
from benchmarks.plain_numpy import PlainRNN
from benchmarks.quiet import quietest
from benchmarks.torch_training import torch_update
from model.cells import CELLS
from model.config import PRESETS, RunConfig
from model.training import Training

SIZES = [
    (cell, hidden, streams) for cell in ("gru", "lstm") for hidden in (128, 256, 512) for streams in (32, 64)
]
TURN_SECONDS = 0.6  # that each contender runs at a time


def seconds(update, count):
    start = time.perf_counter()
    for _ in range(count):
        update()
    return (time.perf_counter() - start) / count


def plain_update(config, text):
    rng = np.random.default_rng(0)
    network, batches = PlainRNN(CHARACTERS, config.hidden, rng), Training(config, *text).batches
    position, h = 0, np.zeros((config.hidden, 1))

    def update():
        nonlocal position, h
        window = batches.window(position)
        position += 1
        _, h = network.update(window.inputs[:, 0], window.targets[:, 0], h)

    return update


def measure(contenders, rounds):
    """{name: median seconds of an update}, in turn, after one round to warm up and to size the turns.

    A turn has many updates: during the first ones the caches hold the data of another contender, and the
    threads of that one may still be spinning on both cores.
    """
    times = {name: [] for name in contenders}
    counts = dict.fromkeys(contenders, 3)
    for index in range(rounds + 1):
        for name, update in contenders.items():
            taken = seconds(update, counts[name])
            if index:
                times[name].append(taken)
            else:
                counts[name] = max(3, round(TURN_SECONDS / taken))
    return {name: statistics.median(values) for name, values in times.items()}


def product_flops(config):
    """Floating-point operations of the matrix products of one update: forward once, backward twice."""
    characters = config.sequence_length * config.streams
    width = CELLS[config.cell].gates * config.hidden
    return characters * 2 * (3 * config.hidden * width + 3 * config.hidden * CHARACTERS + CHARACTERS * width)


def peak_gflops():
    """The best speed of a matrix product on one core with one BLAS thread."""
    a, b = np.ones((1024, 1024), np.float32), np.ones((1024, 1024), np.float32)
    best = min(seconds(lambda: a @ b, 10) for _ in range(5))
    return 2 * 1024**3 / best / 1e9


def classic(rounds, text):
    config = PRESETS["classic"]
    update, close = ours(config, text)
    contenders = {
        "Charloom": update,
        "PyTorch nn.RNN, 1 thread": torch_update(config, text, 1),
        "JAX, compiled, 1 thread": jax_update(config, text),
        "plain NumPy": plain_update(config, text),
    }
    medians, others = quietest(lambda: measure(contenders, rounds))
    close()
    rows = [
        (
            name,
            f"{taken * 1e6:.0f}",
            f"{config.sequence_length / taken:,.0f}",
            f"{taken / medians['Charloom']:.1f}",
        )
        for name, taken in medians.items()
    ]
    head = ("`classic`: Elman, 100, T = 25, 1 stream", "µs an update", "characters/s", "× ours")
    return report.table(head, rows) + f"\n\nOther processes took {others:.0%} of the cores meanwhile."


def batched(rounds, text, sizes):
    peak, rows = peak_gflops(), []
    for cell, hidden, streams in sizes:
        config = RunConfig(cell=cell, hidden=hidden, streams=streams, shards=2, learning_rate=1e-3)
        update, close = ours(config, text)
        contenders = {"ours": update, "JAX": jax_update(config, text)}
        contenders |= {threads: torch_update(config, text, threads) for threads in (1, 2)}
        medians, others = quietest(partial(measure, contenders, rounds))
        close()
        best, jax = min(medians[1], medians[2]), medians["JAX"]
        characters = config.sequence_length * streams
        share = product_flops(config) / medians["ours"] / 1e9 / (2 * peak)
        speeds = [f"{characters / medians[name]:,.0f}" for name in ("ours", 1, 2, "JAX")]
        ratios = [f"{other / medians['ours']:.2f}" for other in (best, jax)]
        rows.append((cell, hidden, streams, *speeds, *ratios, f"{share:.0%}", f"{others:.0%}"))
        print(*rows[-1], file=sys.stderr, flush=True)
    head = (
        "cell",
        "hidden",
        "streams",
        "ours, characters/s",
        "PyTorch, 1 thread",
        "2 threads",
        "JAX, 1 thread",
        "ratio to PyTorch's better",
        "to JAX",
    )
    note = (
        f"\n\nOne core's product peak here: {peak:.0f} GFLOP/s (float32, 1024 × 1024); ours uses two cores."
    )
    return report.table((*head, "ours, share of product peak", "others' share of the cores"), rows) + note


MEMORY = """
import resource
from threadpoolctl import threadpool_limits
from benchmarks.own_training import ours, random_text
from model.config import PRESETS
with threadpool_limits(1):
    {make}
    for _ in range(10):
        update()
    close()
print(sum(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024)
"""
OURS = "update, close = ours(PRESETS['gru'], random_text())"
TORCH = """from benchmarks.torch_training import torch_update
    update, close = torch_update(PRESETS['gru'], random_text(), 2), lambda: None"""


def memory():
    """Peak resident memory in MB of a `gru` training with its helper, and of PyTorch."""
    rows = []
    for name, make in (("Charloom, trainer and helper", OURS), ("PyTorch", TORCH)):
        command = [sys.executable, "-c", MEMORY.format(make=make)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append((name, done.stdout.strip()))
    return report.table(("`gru` training", "peak resident MB"), rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="hidden 256 with 32 streams only")
    arguments = parser.parse_args()
    text = random_text()
    sizes = [("gru", 256, 32), ("lstm", 256, 32)] if arguments.quick else SIZES
    peaks = memory()  # first, because the peak of a child includes the memory of its parent at its start
    with threadpool_limits(1, user_api="blas"):
        parts = [classic(arguments.rounds, text), batched(arguments.rounds, text, sizes), peaks]
    report.save("training", "\n\n".join(["# Training", report.environment("numpy", "torch", "jax"), *parts]))


if __name__ == "__main__":
    main()
