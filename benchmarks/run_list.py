"""The duration of `GET /runs` with many runs in the store.

    python -m benchmarks.run_list [--runs 500] [--requests 200]

Every run has the files of a trained run: checkpoints, curve, samples, state. One of them writes its state and
its curve four times a second, like a run in training.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

import httpx

from app.store import history
from app.store.run_store import RunStore
from app.training.trainer import train_run
from benchmarks import report
from benchmarks.serve_load import command_of, free_port, served
from model.config import PRESETS

TEXT = "the cat sat on a mat and the dog ran\n" * 200
LIMIT = 50  # ms that the median should stay below


def fill(store, count):
    """One trained run, and copies of it under other names."""
    settings = {"steps": 500, "checkpoint_every": 50, "sample_every": 50, "record_every": 10, "hidden": 20}
    run = store.create("run-0", PRESETS["classic"].replace(**settings), TEXT, "cats.txt")
    train_run(run, lambda: False)
    spec = json.loads((run.path / "run.json").read_text())
    for number in range(1, count):
        path = store.root / f"run-{number}"
        shutil.copytree(run.path, path)
        (path / "run.json").write_text(json.dumps(spec | {"name": path.name, "position": number + 1}))
    return store.get(f"run-{count - 1}")


def keep_training(run, over):
    points = run.history()
    while not over.wait(0.25):
        run.write_status(run.status.model_copy(update={"state": "training", "heartbeat": time.time()}))
        history.append(run.history_path, points[-1:])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--requests", type=int, default=200)
    asked = parser.parse_args()
    over = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Path(folder) / "checkpoints")
        training = threading.Thread(target=keep_training, args=(fill(store, asked.runs), over))
        port = free_port()
        with served(command_of(store.root, port), port), httpx.Client() as client:
            training.start()
            milliseconds = []
            for _ in range(asked.requests):
                began = time.perf_counter()
                answer = client.get(f"http://127.0.0.1:{port}/runs")
                milliseconds.append(1000 * (time.perf_counter() - began))
                assert len(answer.json()["runs"]) == asked.runs
            over.set()
            training.join()
    rows = [
        ("runs in the store", asked.runs),
        ("requests, one after the other", asked.requests),
        ("bytes of the answer", len(answer.content)),
        ("ms, the first", f"{milliseconds[0]:.1f}"),
        (f"ms, median (it should be under {LIMIT})", f"{statistics.median(milliseconds):.1f}"),
        ("ms, p99", f"{statistics.quantiles(milliseconds, n=100)[98]:.1f}"),
    ]
    about = report.environment("fastapi", "uvicorn", "pydantic")
    report.save("run_list", f"# GET /runs\n\n{about}\n\n{report.table(('', ''), rows)}\n")


if __name__ == "__main__":
    main()
