"""Held-out losses on tinyshakespeare after a training budget, compared with other models on the same split.

    python -m benchmarks.quality tinyshakespeare.txt [--peer] [--seconds 110] [--seeds 0 1 2] [--members 2]
        [--presets gru-pair gru-pair-muon] [--set FIELD=VALUE] [--save NAME]

Trains on the first 90% of the text. The last 111,540 characters are held out: nothing is chosen by them, and
the network after the last update is measured. Losses are in nats per character, means over the seeds, each
with the largest deviation of a seed. `--peer` trains as many GRUs in PyTorch, each on its own core, for the
same time with the same settings, and averages their logits as well.

Everything runs sequentially: (seconds + 15) x presets x seeds, twice that with `--peer`. Three seeds and both
presets take 25 minutes.
"""

import argparse
import bz2
import functools
import lzma
import math
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from app.training.processes import running_passes
from benchmarks import report
from model.config import PRESETS
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
    """Losses of windows of 64 and of 256 from the zero state, and of the whole with carried state."""
    windowed = [windowed_loss(network, held_out, length) for length in (64, 256)]
    return [*windowed, streaming_loss(network, held_out)]


def ours(config, vocabulary, ids):
    """(network, number of updates) after the training time of `config`."""
    start = time.perf_counter()
    training = Training(config, vocabulary, ids)
    with running_passes(training.members, config) as training.passes:
        while time.perf_counter() - start < 60 * config.minutes:
            training.update()
            training.elapsed = time.perf_counter() - start
    return training.network, training.step


def measured(who, train, evaluate, config, seeds, held_out):
    """A row of the table: `train` and `evaluate` for each seed."""
    results, updates, start = [], [], time.perf_counter()
    for seed in seeds:
        network, steps = train(config.replace(seed=seed))
        updates.append(steps)
        results.append(evaluate(network, held_out))
        print(who, config.optimizer, f"seed {seed}:", *(f"{loss:.4f}" for loss in results[-1]), flush=True)
    characters = np.mean(updates) * config.streams * config.sequence_length / 1e6
    what = f"{who}, {config.members} × {config.cell.upper()} {config.hidden}, {config.optimizer}"
    seconds = (time.perf_counter() - start) / len(seeds)
    cells = [spread(values) for values in np.transpose(results)]
    return (what, f"{characters:.1f} M", *cells, f"{60 * config.minutes:.0f}", f"{seconds:.0f}")


def spread(values):
    """The mean of the values, and the largest deviation from it."""
    mean = np.mean(values)
    return f"{mean:.4f}" + (f" ± {np.abs(values - mean).max():.4f}" if len(values) > 1 else "")


def simple(text, ids, held_out, characters):
    """Rows for models without a network and for general compressors."""
    ngram = ngram_losses(np.concatenate((ids, held_out)), len(ids), characters, ORDER)[-1]
    data = text.encode()
    rows = [("5-gram, Witten-Bell", "", f"{ngram:.4f}")]
    for name, compress in (("bz2", bz2.compress), ("xz", lzma.compress)):
        nats = len(compress(data)) * 8 * math.log(2) / len(text)
        rows.append((f"{name}, the whole file", "", f"{nats:.4f}"))
    return rows


def compared(arguments, vocabulary, ids, held_out):
    """A row for each preset, followed by one of PyTorch with the same settings."""
    nothing = {"validation_fraction": 0.0, "validate_every": 0, "best_by": "smooth_loss"}
    changes = nothing | {"minutes": arguments.seconds / 60, "members": arguments.members}
    changes |= dict(item.split("=") for item in arguments.set)
    for preset in arguments.presets:
        config = PRESETS[preset].replace(**changes)
        with threadpool_limits(1, user_api="blas"), np.errstate(over="ignore"):
            train = functools.partial(ours, vocabulary=vocabulary, ids=ids)
            yield measured("Charloom", train, losses, config, arguments.seeds, held_out)
        if arguments.peer:
            from benchmarks import torch_quality as peer

            train = functools.partial(peer.trained, characters=len(vocabulary), ids=ids)
            yield measured("PyTorch", train, peer.losses, config, arguments.seeds, held_out)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--seconds", type=float, default=110)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--presets", nargs="+", default=["gru-pair", "gru-pair-muon"])
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--save", default="quality")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    arguments = parser.parse_args()
    text = arguments.text.read_text(encoding="utf-8")
    vocabulary = Vocabulary.from_text(text)
    ids = vocabulary.encode(text)
    seen, held_out = ids[:-HELD_OUT], ids[-HELD_OUT:]
    rows = [*compared(arguments, vocabulary, seen, held_out), *simple(text, seen, held_out, len(vocabulary))]
    rows += [(name, "", *cells) for name, *cells in PUBLISHED]
    head = ("", "characters", "T = 64", "T = 256", "carried state", "training, s", "with evaluation, s")
    packages = ("numpy", "torch") if arguments.peer else ("numpy",)
    rows = [(*row, *[""] * (len(head) - len(row))) for row in rows]
    parts = ["# Quality: tinyshakespeare", report.environment(*packages), report.table(head, rows)]
    report.save(arguments.save, "\n\n".join(parts))


if __name__ == "__main__":
    main()
