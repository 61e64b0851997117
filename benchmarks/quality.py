"""Held-out losses on tinyshakespeare after a budget of training, beside other models on the same split.

    python -m benchmarks.quality tinyshakespeare.txt [--seconds 110] [--members 2] [--peer] [--save NAME]

The first 90% of the text are trained on, the rest, the last 111,540 characters, is never seen: nothing is
chosen by it, and the network after the last update is what is measured. Losses are in nats per character.
`--peer` gives PyTorch's GRU the same time on the same cores, with the same settings.
"""

import argparse
import bz2
import lzma
import math
import os
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from app.training.processes import running_passes
from benchmarks import report
from model.config import DEFAULT_PRESET, PRESETS
from model.evaluation import streaming_loss, windowed_loss
from model.ngram import ORDER, ngram_losses
from model.training import Training
from model.vocabulary import Vocabulary

HELD_OUT = 111_540
PUBLISHED = (
    ("nanoGPT, CPU quick start (its README, 1.88; 1.8857 when run again)", "1.886", "", ""),
    ("nanoGPT, 6 layers of 384 on an A100 (its README)", "", "1.4697", ""),
)


def losses(network, held_out):
    """The three losses as table cells, and the seconds that measuring took."""
    start = time.perf_counter()
    measured = [windowed_loss(network, held_out, length) for length in (64, 256)]
    measured.append(streaming_loss(network, held_out))
    return [f"{loss:.4f}" for loss in measured], time.perf_counter() - start


def ours(config, vocabulary, ids, held_out):
    start = time.perf_counter()
    training = Training(config, vocabulary, ids)
    with running_passes(training.members, config) as training.passes:
        while time.perf_counter() - start < 60 * config.minutes:
            training.update()
            training.elapsed = time.perf_counter() - start
    seconds = time.perf_counter() - start
    cells, evaluation = losses(training.network, held_out)
    characters = training.step * config.streams * config.sequence_length
    network = f"{config.members} × {config.cell.upper()} {config.hidden}"
    what = f"Charloom, {network}, {characters / 1e6:.1f} M characters"
    return (what, *cells, f"{seconds:.0f}", f"{evaluation:.0f}")


def peer(config, vocabulary, ids, held_out):
    """PyTorch's GRU with an embedding, both threads, the same optimiser, schedule and batches."""
    from benchmarks.torch_quality import TorchGRU

    network = TorchGRU(config, vocabulary, len(os.sched_getaffinity(0)))
    start = time.perf_counter()
    steps = network.train(ids, 60 * config.minutes)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    cells = [f"{loss:.4f}" for loss in network.losses(held_out)]
    characters = steps * config.streams * config.sequence_length
    what = f"PyTorch, 1 × GRU {config.hidden}, {characters / 1e6:.1f} M characters"
    return (what, *cells, f"{seconds:.0f}", f"{time.perf_counter() - start:.0f}")


def simple(text, ids, held_out, characters):
    """What models without a network and general compressors give."""
    start = time.perf_counter()
    ngram = ngram_losses(np.concatenate((ids, held_out)), len(ids), characters, ORDER)[-1]
    seconds = time.perf_counter() - start
    data = text.encode()
    rows = [("5-gram, Witten-Bell", f"{ngram:.4f}", "", "", f"{seconds:.1f}", "")]
    for name, compress in (("bz2", bz2.compress), ("xz", lzma.compress)):
        nats = len(compress(data)) * 8 * math.log(2) / len(text)
        rows.append((f"{name}, the whole file", f"{nats:.4f}", "", "", "", ""))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--seconds", type=float, default=110)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--save", default="quality")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    arguments = parser.parse_args()
    text = arguments.text.read_text(encoding="utf-8")
    vocabulary = Vocabulary.from_text(text)
    ids = vocabulary.encode(text)
    seen, held_out = ids[:-HELD_OUT], ids[-HELD_OUT:]
    nothing = {"validation_fraction": 0.0, "validate_every": 0, "best_by": "smooth_loss"}
    changes = nothing | {"minutes": arguments.seconds / 60, "members": arguments.members}
    config = PRESETS[DEFAULT_PRESET].replace(**changes | dict(item.split("=") for item in arguments.set))
    with threadpool_limits(1, user_api="blas"), np.errstate(over="ignore"):
        rows = [ours(config, vocabulary, seen, held_out)]
        if arguments.peer:
            rows.append(peer(config, vocabulary, seen, held_out))
        rows += simple(text, seen, held_out, len(vocabulary))
    rows += [(*row, "", "") for row in PUBLISHED]
    head = ("", "T = 64", "T = 256", "carried state", "training, s", "evaluation, s")
    packages = ("numpy", "torch") if arguments.peer else ("numpy",)
    parts = ["# Quality: tinyshakespeare", report.environment(*packages), report.table(head, rows)]
    report.save(arguments.save, "\n\n".join(parts))


if __name__ == "__main__":
    main()
