"""Minutes of open-loop load, at half the capacity and at three times the capacity, with varied clients.

    python -m benchmarks.soak [--minutes 10] [--loads 0.5 3] [--processes 2]

First, 64 clients that send requests without a pause measure the capacity, and three times that load for
WARM_SECONDS brings memory to the level of a full server. Then requests are sent at random times (Poisson),
whether or not earlier ones are answered, for `--minutes` at each of the two rates: plain texts and streams,
and clients that disconnect, stop reading for seconds, or send slowly; `benchmarks.soak_clients` lists the
possible results. The duration of a request counts from the time when it was due, so a driver that falls
behind is visible. A separate process requests `/healthz` ten times a second on new connections. Memory,
descriptors and threads of the server are read at the start and the end, memory also every minute.
"""

import argparse
import asyncio
import math
import multiprocessing
import os
import random
import resource
import statistics
import tempfile
import time
from array import array
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from benchmarks import report
from benchmarks.overload import ask
from benchmarks.serve_load import command_of, free_port, make_store, served
from benchmarks.soak_clients import KINDS, LATEST, LENGTH, Pool, one

try:
    from uvloop import run
except ImportError:
    from asyncio import run

CAPACITY_SECONDS, WARM_SECONDS = 8, 20
REST_SECONDS = 7  # after which unused connections are closed; uvicorn closes them after five


class Server:
    """Memory, descriptors and threads of a server process and its children together."""

    def __init__(self, pid):
        self.pid = pid

    @property
    def pids(self):
        return [self.pid, *children(self.pid)]

    def megabytes(self):
        pages = (Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1] for pid in self.pids)
        return sum(map(int, pages)) * resource.getpagesize() / (1 << 20)

    def descriptors(self):
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids)

    def threads(self):
        return sum(len(os.listdir(f"/proc/{pid}/task")) for pid in self.pids)

    def sample(self):
        return self.megabytes(), self.descriptors(), self.threads()


def children(pid):
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if int((path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.name))
    return found


def watch(port, stop, results):
    """Request the health ten times a second, like an orchestrator, each time on a new connection.

    Runs in a separate process, which the load does not delay. A missing answer counts as infinitely late.
    """
    latencies = []
    while not stop.wait(0.1):
        start = time.perf_counter()
        try:
            status, _, _ = asyncio.run(ask(port, "GET", "/healthz"))
        except (OSError, EOFError):
            status = None
        latencies.append(1000 * (time.perf_counter() - start) if status == 200 else math.inf)
    results.put(latencies)


@contextmanager
def watched(port, latencies):
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    process = context.Process(target=watch, args=(port, stop, results), daemon=True)
    process.start()
    try:
        yield
    finally:
        stop.set()
        latencies.extend(results.get(timeout=LATEST))
        process.join()


class Tally:
    """The results of the requests: their counts, and the durations of texts and refusals in ms."""

    def __init__(self):
        self.results, self.texts, self.refusals, self.late = Counter(), array("d"), array("d"), array("d")

    def append(self, answer):
        kind, result, milliseconds = answer
        self.results[result] += 1
        if kind in ("plain", "stream"):  # the duration of the others depends on the client
            if result == "200":
                self.texts.append(milliseconds)
            elif result == "429":
                self.refusals.append(milliseconds)


async def capacity(port):
    """Requests per second that are answered for 64 clients that send without a pause."""
    answers, pool = [], Pool(port)
    end = time.perf_counter() + CAPACITY_SECONDS

    async def client(number):
        while (now := time.perf_counter()) < end:
            await one(pool, "stream" if number % 3 == 0 else "plain", len(answers), now, answers)

    await asyncio.gather(*(client(number) for number in range(64)))
    assert all(result == "200" for _, result, _ in answers), Counter(result for _, result, _ in answers)
    return len(answers) / CAPACITY_SECONDS


async def load(port, rate, seconds, server):
    """Open loop: send `rate` requests per second. Returns (tally, pool, memory by the minute)."""
    rng, tally, tasks, pool = random.Random(1), Tally(), set(), Pool(port)
    start, due, number, memory = time.perf_counter(), 0.0, 0, []
    while due < seconds:
        due += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
        tally.late.append(1000 * (time.perf_counter() - start - due))
        if due >= 60 * len(memory):
            memory.append(server.megabytes())
        kind = rng.choices(list(KINDS), KINDS.values())[0]
        task = asyncio.create_task(one(pool, kind, number, start + due, tally))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
    await asyncio.gather(*tasks)
    assert tally.results.total() == number
    return tally, pool, memory


def phase(port, rate, seconds, server):
    """(tally, pool, memory by the minute, health latencies, server at start and end)."""
    latencies, before = [], server.sample()
    with watched(port, latencies):
        results = run(load(port, rate, seconds, server))
    time.sleep(REST_SECONDS)
    return *results, latencies, (before, server.sample())


def p(values, part):
    return sorted(values)[int(part * (len(values) - 1))] if values else float("nan")


def times_of(values, digits=0):
    return f"{statistics.median(values):.{digits}f} / {p(values, 0.99):.{digits}f}" if values else "–"


def describe(times, rate, outcome):
    tally, pool, memory, latencies, (first, last) = outcome
    failures = {name: n for name, n in sorted(tally.results.items()) if name not in ("200", "left", "429")}
    never = sum(math.isinf(latency) for latency in latencies)
    growth = [f"{a:.0f} → {b:.0f}" for a, b in zip(first, last, strict=True)]
    return {
        "load": f"{times:g} × capacity",
        "requests/s": f"{rate:.0f}",
        "sent": tally.results.total(),
        "whole texts": tally.results["200"],
        "clients that left": tally.results["left"],
        "429": tally.results["429"],
        "other failures": ", ".join(f"{n} {name}" for name, n in failures.items()) or "none",
        "text, ms p50 / p99": times_of(tally.texts),
        "refusal, ms p50 / p99": times_of(tally.refusals),
        "/healthz, ms p50 / p99 / most": f"{times_of(latencies, 1)} / {max(latencies):.0f}",
        "/healthz without answer": f"{never} of {len(latencies)}",
        "memory, MB": growth[0],
        "by the minute": ", ".join(f"{megabytes:.0f}" for megabytes in memory),
        "descriptors": growth[1],
        "threads": growth[2],
        "most connections": pool.peak,
        "driver late, ms p50 / p99": times_of(tally.late, 1),
    }


def turned(rows):
    """A table with a column for each load."""
    return report.table(
        ("", *(row.pop("load") for row in rows)),
        list(zip(rows[0], *(row.values() for row in rows), strict=True)),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--loads", type=float, nargs="+", default=(0.5, 3), help="multiples of the capacity")
    parser.add_argument("--processes", type=int, default=1, help="server processes")
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        make_store(Path(folder))
        quiet = {"CHARLOOM_LOG_LEVEL": "warning", "CHARLOOM_ACCESS_LOG": "false"}
        quiet["CHARLOOM_PROCESSES"] = str(arguments.processes)
        server = Server(stack.enter_context(served(command_of(folder, port), port, quiet)).pid)
        time.sleep(REST_SECONDS if arguments.processes > 1 else 0)  # until all of them serve
        run(capacity(port))  # to warm up
        most = run(capacity(port))
        phase(port, 3 * most, WARM_SECONDS, server)
        rows = [
            describe(times, times * most, phase(port, times * most, 60 * arguments.minutes, server))
            for times in arguments.loads
        ]
    environment = report.environment("numpy", "fastapi", "uvicorn")
    summary = (
        f"Capacity: {most:.0f} requests a second of {LENGTH} characters each, a third of them streams. "
        f"Server (processes: {arguments.processes}) and clients shared the machine."
    )
    name = "soak" if arguments.processes == 1 else f"soak_{arguments.processes}_processes"
    report.save(name, "\n\n".join(["# Soak", environment, summary, turned(rows)]))


if __name__ == "__main__":
    main()
