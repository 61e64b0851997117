"""Minutes of an open-loop load, at half and at three times the capacity, with clients of every kind.

    python -m benchmarks.soak [--minutes 5]

First the capacity is measured by 64 clients that each ask again at once. Then requests come at random moments
(Poisson), whether or not earlier ones are answered, for `--minutes` at each of the two rates: plain texts and
streams, clients that leave, that stop reading for seconds, and that send slowly. Beside them `/healthz` is
asked ten times a second, and memory, descriptors and threads of the server are read at start and end.

An answer counts as lost if it was accepted (200) and did not come whole to a client that stayed. A connection
that breaks before any answer was never accepted. Requests use kept connections where one is free, as a
proxy's do.
"""

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import random
import resource
import statistics
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import report
from benchmarks.overload import ask, message
from benchmarks.serve_load import command_of, free_port, make_store, served

try:
    from uvloop import run
except ImportError:
    from asyncio import run

LENGTH = 1000
KINDS = {"plain": 55, "stream": 30, "leaves": 5, "stalls": 5, "sends slowly": 5}
STALL_SECONDS, SLOW_SECONDS = 3.0, 2.0
LATEST = 90  # seconds that the last answers may take
CAPACITY_SECONDS = 8


class Server:
    """What the system knows of a process."""

    def __init__(self, pid):
        self.pid = pid

    def megabytes(self):
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / (1 << 20)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def sample(self):
        return self.megabytes(), self.descriptors(), self.threads()


async def whole(reader, answering, pause=0.0):
    """(status, body) of an answer of either kind; raises if it is cut. Notes in `answering` that it began."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    answering.append(head)
    if b"content-length:" in head:
        body = await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        return int(head[9:12]), body
    await asyncio.sleep(pause)
    pieces = []
    while size := int(await reader.readline(), 16):
        pieces.append((await reader.readexactly(size + 2))[:-2])
    await reader.readline()
    return int(head[9:12]), b"".join(pieces)


def judged(status, body, streamed):
    """What an answer counts as."""
    if status != 200:
        return str(status)
    if streamed:
        return "200" if b"event: done\n" in body else "lost"
    return "200" if len(json.loads(body)["text"]) == LENGTH else "lost"


class Connections:
    """Kept connections, as a proxy has them: taken by one request at a time, and made where none is free."""

    def __init__(self, port):
        self.port, self.free = port, []

    async def take(self):
        """(reader, writer) and whether it was used before: such a one may have been closed meanwhile."""
        while self.free:
            reader, writer = self.free.pop()
            if not (writer.is_closing() or reader.at_eof()):
                return reader, writer, True
            writer.close()
        return (*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20), False)


async def one(connections, kind, seed, answers):
    """One client: a request, and what became of it."""
    began = time.perf_counter()
    streamed = kind in ("stream", "leaves", "stalls")
    body = json.dumps({"prompt": "the ", "length": LENGTH, "seed": seed, "stream": streamed}).encode()
    data = message("POST", "/generate", connections.port, body)
    result, used = "not accepted", True
    while used and result == "not accepted":
        result, used = await attempt(connections, kind, data)
    answers.append((kind, result, 1000 * (time.perf_counter() - began)))


async def attempt(connections, kind, data):
    """What became of a request on one connection, and whether that had been used before."""
    writer, used, answering = None, False, []
    try:
        async with asyncio.timeout(LATEST):
            reader, writer, used = await connections.take()
            if kind == "sends slowly":
                for at in range(0, len(data), 40):
                    writer.write(data[at : at + 40])
                    await asyncio.sleep(SLOW_SECONDS * 40 / len(data))
            else:
                writer.write(data)
            if kind == "leaves":
                answering.append(await reader.read(100))
                writer.close()
                return ("left" if answering[0] else "not accepted"), used
            status, body = await whole(reader, answering, STALL_SECONDS if kind == "stalls" else 0.0)
            connections.free.append((reader, writer))
            return judged(status, body, kind in ("stream", "stalls")), used
    except (OSError, EOFError, RuntimeError) as error:  # uvloop: RuntimeError for a closed connection
        if writer is not None:
            writer.close()
        begun = answering or (isinstance(error, asyncio.IncompleteReadError) and error.partial)
        return ("lost" if begun else "not accepted"), used


def watch(port, stop, told):
    """Asks for health ten times a second, as an orchestrator does, each time on a connection of its own.

    In a process of its own, which the load does not delay. A question without an answer is infinitely late.
    """
    latencies = []
    while not stop.wait(0.1):
        start = time.perf_counter()
        try:
            status, _, _ = asyncio.run(ask(port, "GET", "/healthz"))
        except (OSError, EOFError):
            status = None
        latencies.append(1000 * (time.perf_counter() - start) if status == 200 else math.inf)
    told.put(latencies)


@contextmanager
def watched(port, latencies):
    context = multiprocessing.get_context("spawn")
    stop, told = context.Event(), context.Queue()
    process = context.Process(target=watch, args=(port, stop, told), daemon=True)
    process.start()
    try:
        yield
    finally:
        stop.set()
        latencies.extend(told.get(timeout=LATEST))
        process.join()


async def capacity(port):
    """Requests a second that 64 clients get answered, each asking again at once."""
    answers, connections = [], Connections(port)
    end = time.perf_counter() + CAPACITY_SECONDS

    async def client(number):
        while time.perf_counter() < end:
            await one(connections, "stream" if number % 3 == 0 else "plain", len(answers), answers)

    await asyncio.gather(*(client(number) for number in range(64)))
    return len(answers) / CAPACITY_SECONDS


async def load(port, rate, seconds):
    """Open loop: `rate` requests a second, whatever becomes of them."""
    rng, answers, tasks, connections = random.Random(1), [], set(), Connections(port)
    start, due, number = time.perf_counter(), 0.0, 0
    while due < seconds:
        due += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
        kind = rng.choices(list(KINDS), KINDS.values())[0]
        task = asyncio.create_task(one(connections, kind, number, answers))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
    await asyncio.gather(*tasks)
    await asyncio.sleep(2)
    return number, answers


def phase(port, rate, seconds, server):
    """(requests sent, answers, health latencies, server at start and end)."""
    latencies, before = [], server.sample()
    with watched(port, latencies):
        sent, answers = run(load(port, rate, seconds))
    return sent, answers, latencies, (before, server.sample())


def p(values, part):
    return sorted(values)[int(part * (len(values) - 1))] if values else float("nan")


def describe(times, rate, outcome):
    sent, answers, latencies, samples = outcome
    results = Counter(result for _, result, _ in answers)
    good = [ms for kind, result, ms in answers if result == "200" and kind in ("plain", "stream")]
    refused = [ms for kind, result, ms in answers if result == "429" and kind in ("plain", "stream")]
    failures = {name: n for name, n in sorted(results.items()) if name not in ("200", "left", "429")}
    assert len(answers) == sent
    first, last = samples
    growth = [f"{a:.0f} → {b:.0f}" for a, b in zip(first, last, strict=True)]
    return (
        f"{times:g} × capacity",
        f"{rate:.0f}",
        sent,
        results["200"],
        results["left"],
        results["429"],
        ", ".join(f"{n} {name}" for name, n in failures.items()) or "none",
        f"{statistics.median(good):.0f} / {p(good, 0.99):.0f}" if good else "–",
        f"{statistics.median(refused):.0f} / {p(refused, 0.99):.0f}" if refused else "–",
        f"{statistics.median(latencies):.1f} / {p(latencies, 0.99):.1f} / {max(latencies):.0f}",
        *growth,
    )


HEAD = (
    "load",
    "requests/s",
    "sent",
    "whole texts",
    "clients that left",
    "429",
    "other failures",
    "text, ms p50 / p99",
    "refusal, ms p50 / p99",
    "/healthz, ms p50 / p99 / most",
    "memory, MB",
    "descriptors",
    "threads",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        make_store(Path(folder))
        quiet = {"CHARLOOM_LOG_LEVEL": "warning", "CHARLOOM_ACCESS_LOG": "false"}
        server = Server(stack.enter_context(served(command_of(folder, port), port, quiet)).pid)
        run(capacity(port))  # once in vain: everything is loaded and warm then
        most = run(capacity(port))
        rows = [
            describe(times, times * most, phase(port, times * most, 60 * arguments.minutes, server))
            for times in (0.5, 3)
        ]
    environment = report.environment("numpy", "fastapi", "uvicorn")
    told = f"Capacity: {most:.0f} requests a second of {LENGTH} characters each, a third of them streams."
    report.save("soak", "\n\n".join(["# Soak", environment, told, report.table(HEAD, rows)]))


if __name__ == "__main__":
    main()
