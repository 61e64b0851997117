"""Many clients with fixed seeds while new checkpoints arrive: is every text that of its checkpoint?

    python -m benchmarks.hot_swap [--seconds 30] [--clients 64] [--every 0.1]

A writer adds a checkpoint with other weights to the store every tenth of a second, like a worker. Each answer
names its checkpoint. Afterwards every text is generated again from that checkpoint, outside any server, and
compared byte by byte. Half of the answers are streams.
"""

import argparse
import asyncio
import json
import random
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from app.store.files import write_atomic
from app.store.records import CheckpointEntry, Latest
from app.store.run_store import RunStore
from benchmarks import report
from benchmarks.load_client import answer
from benchmarks.overload import message
from benchmarks.serve_load import command_of, free_port, make_store, served
from model.checkpoint import encode, load
from model.generation import generate

KINDS = 12  # different weights, used in turn
KEPT = 5  # newest files that are kept
LATEST = 60  # seconds allowed for the last answers


class Swapper(threading.Thread):
    """Writes a checkpoint every `every` seconds, each with other weights than the one before."""

    def __init__(self, run, every):
        super().__init__(daemon=True)
        self.run_, self.every, self.written, self.stopping = run, every, 0, threading.Event()
        self.checkpoint = load(run.checkpoints()[max(run.checkpoints())])
        rng = np.random.default_rng(0)
        first = self.checkpoint.parameters
        noise = [rng.normal(0, 0.02, first.size) for _ in range(KINDS)]
        self.kinds = [(first + part).astype(first.dtype) for part in noise]
        self.first = self.checkpoint.step
        self.weights = {self.first: first}  # by step

    def run(self):
        while not self.stopping.wait(self.every):
            self.written += 1
            self.checkpoint.step = self.first + self.written
            self.weights[self.checkpoint.step] = self.kinds[self.written % KINDS]
            self.checkpoint.parameters = self.weights[self.checkpoint.step]
            path = self.run_.checkpoint_path(self.checkpoint.step)
            write_atomic(path, encode(self.checkpoint))
            entry = CheckpointEntry(
                file=path.name, step=self.checkpoint.step, digest=self.checkpoint.digest, time=time.time()
            )
            self.run_.write_latest(Latest(newest=entry))
            for old in list(self.run_.checkpoints().values())[:-KEPT]:
                old.unlink()

    def expected(self, step, request):
        """The text that the checkpoint of `step` writes for a request, outside a server."""
        self.checkpoint.parameters = self.weights[step]
        network = self.checkpoint.network()
        return generate(
            network, self.checkpoint.vocabulary, request["prompt"], request["length"], seed=request["seed"]
        ).text


async def client(port, number, end, answers):
    rng = random.Random(number)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < end:
        request = {"prompt": "the ", "length": rng.choice((20, 200, 600)), "seed": rng.randrange(10**6)}
        streamed = rng.random() < 0.5
        writer.write(message("POST", "/generate", port, json.dumps(request | {"stream": streamed}).encode()))
        status, body, _ = await answer(reader)
        if status == 200 and streamed:
            body = body.decode().rpartition("event: done\ndata: ")[2].encode()
        answers.append((request, status, json.loads(body)))
    writer.close()


async def clients(port, count, seconds):
    answers = []
    end = time.monotonic() + seconds
    async with asyncio.timeout(seconds + LATEST):
        await asyncio.gather(*(client(port, number, end, answers) for number in range(count)))
    return answers


def swap(folder, seconds, count, every):
    """(answers, number of checkpoints written, answers whose text is not that of their checkpoint)."""
    make_store(folder)
    run = RunStore(folder).get("classic")
    port, swapper = free_port(), Swapper(run, every)
    quiet = {
        "CHARLOOM_LOG_LEVEL": "warning",
        "CHARLOOM_ACCESS_LOG": "false",
        "CHARLOOM_POLL_SECONDS": "0.02",
    }
    with ExitStack() as stack:
        stack.enter_context(served(command_of(folder, port), port, quiet))
        swapper.start()
        stack.callback(swapper.join)
        stack.callback(swapper.stopping.set)
        answers = asyncio.run(clients(port, count, seconds))
    wrong = [
        (request, body)
        for request, status, body in answers
        if status == 200 and body["text"] != swapper.expected(body["step"], request)
    ]
    return answers, swapper.written, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--every", type=float, default=0.1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        answers, written, wrong = swap(Path(folder), arguments.seconds, arguments.clients, arguments.every)
    statuses = Counter(status for _, status, _ in answers)
    rows = [
        ("seconds, clients", f"{arguments.seconds:g}, {arguments.clients}"),
        ("checkpoints written", written),
        ("checkpoints that texts came from", len({body["model"] for _, s, body in answers if s == 200})),
        ("texts", statuses[200]),
        ("failures", sum(statuses.values()) - statuses[200]),
        ("texts that are not their checkpoint's own", len(wrong)),
    ]
    environment = report.environment("numpy", "fastapi", "uvicorn")
    report.save("hot_swap", "\n\n".join(["# Hot swap", environment, report.table(("", ""), rows)]))


if __name__ == "__main__":
    main()
