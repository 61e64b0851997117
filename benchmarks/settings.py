"""Compares settings of a run on a validation part of the training text of any file.

    python -m benchmarks.settings text.txt --updates 1200 --seeds 0 1 \
        --try optimizer=adamw --try optimizer=muon,learning_rate=0.01 [--hold-back 111540] [--save NAME]

`--python` uses Python's standard library instead of a file.
The last `--hold-back` characters are removed first, so that nothing is chosen by what `quality` reports.
Losses, in nats per character, are measured on the last tenth of the rest, which is not trained on. A number
of updates, unlike a time, gives the same result on a busy machine.
"""

import argparse
import sysconfig
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from app.training.processes import running_passes
from benchmarks import report
from benchmarks.quality import losses
from model.config import DEFAULT_PRESET, PRESETS
from model.training import Training
from model.vocabulary import Vocabulary

VALIDATION = 0.1
PYTHON_CHARACTERS = 1_000_000


def python_text():
    """The first million characters of the modules of the standard library, in order of their names."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return "".join(file.read_text(encoding="utf-8") for file in files)[:PYTHON_CHARACTERS]


def text_of(arguments):
    if arguments.python:
        return "Python's standard library", python_text()
    return arguments.text.name, arguments.text.read_text(encoding="utf-8")


def measured(config, vocabulary, ids, validation):
    """Train to the end of the run; return (updates, seconds, the three losses)."""
    start = time.perf_counter()
    training = Training(config, vocabulary, ids)
    with running_passes(training.members, config) as training.passes:
        while not training.finished:
            training.update()
            training.elapsed = time.perf_counter() - start
    cells = [f"{loss:.4f}" for loss in losses(training.network, validation)]
    return training.step, f"{training.elapsed:.0f}", *cells


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path, nargs="?")
    parser.add_argument("--python", action="store_true")
    parser.add_argument("--hold-back", type=int, default=0)
    parser.add_argument("--updates", type=int, default=1200)
    parser.add_argument("--seconds", type=float, default=0, help="in place of updates")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--try", action="append", default=[], dest="tried", metavar="FIELD=VALUE,...")
    parser.add_argument("--save", default="settings")
    arguments = parser.parse_args()
    if bool(arguments.text) == arguments.python:
        parser.error("give one of: a text, --python")
    name, text = text_of(arguments)
    vocabulary = Vocabulary.from_text(text)
    ids = vocabulary.encode(text)[: len(text) - arguments.hold_back]
    seen, validation = np.split(ids, [int(len(ids) * (1 - VALIDATION))])
    end = {"minutes": arguments.seconds / 60} if arguments.seconds else {"steps": arguments.updates}
    nothing = {"validation_fraction": 0.0, "validate_every": 0, "best_by": "smooth_loss"}
    rows = []
    with threadpool_limits(1, user_api="blas"), np.errstate(over="ignore"):
        for tried in arguments.tried or [""]:
            changes = dict(item.split("=") for item in tried.split(",") if item)
            for seed in arguments.seeds:
                config = PRESETS[DEFAULT_PRESET].replace(**nothing | end | {"seed": seed} | changes)
                rows.append((tried or "as it is", seed, *measured(config, vocabulary, seen, validation)))
                print(*rows[-1], flush=True)
    head = ("settings", "seed", "updates", "seconds", "T = 64", "T = 256", "carried state")
    parts = [f"# Settings compared: {name}", report.environment("numpy"), report.table(head, rows)]
    report.save(arguments.save, "\n\n".join(parts))


if __name__ == "__main__":
    main()
