"""The cost of workers and servers, their operations on the store, and the limits of one store.

    python -m benchmarks.scale [--runs 500] [--seconds 31]

It measures processor time, because two cores cannot show a higher throughput: 1 to 4 workers train four small
runs, and 1 to 3 servers write texts of 200 characters, side by side. The processes count their operations on
a store of many runs themselves (benchmarks/counted.py). benchmarks/fleet.py then simulates a large fleet.
"""

import argparse
import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.store.run_store import RunStore
from benchmarks import report
from benchmarks.fleet import Costs, Fleet, Volume, breaks, share, simulate
from benchmarks.run_list import TEXT, fill
from benchmarks.serve_load import command_of, free_port, load, make_store, served
from model.config import PRESETS

WORKERS, SERVERS = (1, 2, 3, 4), (1, 2, 3)
PARTS, UPDATES, ROUNDS = 4, 4000, 2
CLIENTS, LOAD_SECONDS = 8, 1.5
SETTLE_SECONDS = 8  # until a process has started and has read everything that is new
LONG_TEXT = TEXT * 20
ALONE = "worker in training, in a store of this one run"
ENDLESS = PRESETS["gru"].replace(steps=10**6, members=1, shards=1)
WHOLE = Fleet(1000, 200, 10_000)
SIZES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
VOLUMES = (
    # the first is an assumption: insert the figures of your own server
    Volume("NFS server, 1 Gb/s", 10_000, 5_000, 125e6, 125e6, 0.0005),
    # quotas of a new file system, docs.aws.amazon.com/efs/latest/ug/limits.html and performance.html
    Volume("Amazon EFS, elastic", 250_000, 50_000, 10 * 2**30, 2**30, 0.001),
)
WORDS = {
    "operations": "operations",
    "writes": "operations that write",
    "read_bytes": "bytes to readers",
    "written_bytes": "bytes to writers",
}
QUIET = {"CHARLOOM_LOG_LEVEL": "warning", "CHARLOOM_ACCESS_LOG": "false", "CHARLOOM_CORPUS": "none.txt"}


def worker(store, *options, counted=()):
    module = ["benchmarks.counted", *map(str, counted)] if counted else ["app.cli"]
    command = [sys.executable, "-m", *module, "worker", "--store", str(store), *options]
    return subprocess.Popen(command, env=os.environ | QUIET, stderr=subprocess.DEVNULL)


def worker_seconds(store, count):
    """Processor seconds of `count` workers, from their start until no run is left to train."""
    processes = [worker(store, "--until-idle") for _ in range(count)]
    used = []
    for process in processes:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, process.args
        used.append(usage.ru_utime + usage.ru_stime)
    return sum(used)


def measure_workers():
    """(processor seconds of a worker with a single update, {workers: processor seconds of 1,000 updates})."""
    settings = {"steps": UPDATES, "sample_every": 0, "best_sample_length": 0}
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        RunStore(folder).create("run", PRESETS["classic"].replace(**settings | {"steps": 1}), TEXT, "a.txt")
        start = worker_seconds(folder, 1)
    for count in WORKERS:
        with tempfile.TemporaryDirectory() as folder:
            for part in range(PARTS):
                RunStore(folder).create(f"run-{part}", PRESETS["classic"].replace(**settings), TEXT, "a.txt")
            training = worker_seconds(folder, count) - count * start
            runs = RunStore(folder).list()
            assert [run.status.state for run in runs] == ["finished"] * PARTS
            seconds[count] = training / (PARTS * UPDATES / 1000)
    return start, seconds


def measure_servers():
    """{servers: minimum processor time of a request, in ms}."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        make_store(Path(folder))
        started = []
        for count in SERVERS:
            port = free_port()
            started.append((port, stack.enter_context(served(command_of(folder, port), port, QUIET)).pid))
            found[count] = min(request_milliseconds(started) for _ in range(ROUNDS))
    return found


def request_milliseconds(servers):
    """Processor time of a request in ms, with all servers under load at the same time."""
    with ThreadPoolExecutor(len(servers)) as pool:
        loads = [pool.submit(load, port, CLIENTS, LOAD_SECONDS, "plain", pid) for port, pid in servers]
        results = [one.result() for one in loads]
    assert not any(result["failed"] for result in results)
    requests = sum(result["requests"] for result in results)
    return sum(result["cpu_all"] * result["requests"] for result in results) / requests / 1000


class Counted:
    """A process that counts its operations on a store."""

    def __init__(self, path):
        self.path, self.before, self.at = path, (0, 0), 0.0

    def counts(self):
        total, writing = self.path.read_text().split()
        return int(total), int(writing)

    def begin(self):
        self.before, self.at = self.counts(), time.monotonic()

    def rates(self):
        """Operations per second since `begin`, and how many of them write."""
        seconds, now = time.monotonic() - self.at, self.counts()
        return [(after - before) / seconds for after, before in zip(now, self.before, strict=True)]


def measure_operations(runs, seconds):
    """{process: (operations per second, how many of them write)}; operations per run of the first reading;
    bytes of a checkpoint; number of texts written."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        store = RunStore(Path(folder) / "checkpoints")
        fill(store, runs)
        counts = {name: Counted(Path(folder) / name) for name in ("first", "second", "server", "alone")}
        workers = {}

        def begin(name, store=store):
            workers[name] = worker(store.root, counted=(counts[name].path, store.root))
            stack.callback(workers[name].wait, 30)
            stack.callback(workers[name].terminate)

        port = free_port()
        command = command_of(store.root, port)
        counted = [sys.executable, "-m", "benchmarks.counted", counts["server"].path, store.root]
        server = stack.enter_context(served([*map(str, counted), *command[3:]], port, QUIET))
        begin("first")
        alone = RunStore(Path(folder) / "alone-store")
        alone.create("more", ENDLESS, LONG_TEXT, "a.txt")
        begin("alone", alone)
        time.sleep(SETTLE_SECONDS)
        first_look = counts["first"].counts()[0] / runs
        measure = [("worker without a run to train", "first"), ("server that nobody asks", "server")]
        found |= rates_of(counts, [*measure, (ALONE, "alone")], seconds)
        workers["alone"].terminate()
        size = (alone.root / "more" / alone.get("more").latest().newest.file).stat().st_size
        store.create("more", ENDLESS, LONG_TEXT, "a.txt")
        begin("second")
        time.sleep(SETTLE_SECONDS)
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(load, port, CLIENTS, seconds, "plain", server.pid)
            measure = [("worker in training", "first"), ("second worker, without a run", "second")]
            under = "server under load, a run in training"
            found |= rates_of(counts, [*measure, (under, "server")], seconds)
            requests = loading.result()["requests"]
    return found, first_look, size, requests


def rates_of(counts, measure, seconds):
    for _, name in measure:
        counts[name].begin()
    time.sleep(seconds)
    return {what: counts[name].rates() for what, name in measure}


def show_costs(start, updates, requests):
    rows = [
        (f"{count} worker{'s' if count > 1 else ''}: CPU s for 1,000 updates", f"{of:.3f}", of / updates[1])
        for count, of in updates.items()
    ]
    rows += [
        (f"{count} server{'s' if count > 1 else ''}: CPU ms for a request", f"{of:.2f}", of / requests[1])
        for count, of in requests.items()
    ]
    rows = [(what, of, f"{ratio:.2f}") for what, of, ratio in rows]
    rows.append(("start of a worker, and one update: CPU s", f"{start:.2f}", ""))
    return report.table(("", "", "× one"), rows)


def show_fleet(whole, costs, volume):
    rows = []
    for part in SIZES:
        fleet = share(whole, part)
        of = simulate(fleet, costs, volume)
        rows.append(
            (
                f"{fleet.servers:,} / {fleet.workers} / {fleet.runs:,}",
                f"{of['operations']:,.0f} ({of['operations'] / volume.operations:.0%})",
                f"{of['writes']:,.0f} ({of['writes'] / volume.writes:.0%})",
                f"{of['read_bytes'] / 1e6:,.0f} ({of['read_bytes'] / volume.read_bytes:.0%})",
                f"{of['written_bytes'] / 1e6:,.0f} ({of['written_bytes'] / volume.written_bytes:.0%})",
                f"{of['first_list']:.1f}",
                f"{of['news']:.1f}",
                f"{of['taken_over']:.0f}",
            )
        )
    head = ("servers / workers / runs", "operations/s", "writes/s", "MB/s read", "MB/s written")
    times = ("first list, s", "news found, s", "lost worker's run goes on, s")
    return report.table((*head, *times), rows)


def show_breaks(whole, costs, volume):
    found = breaks(whole, costs, volume)
    if not found:
        return "nothing is exhausted."
    sizes = [
        f"{WORDS[what]} at {fleet.servers:,} servers, {fleet.workers} workers and {fleet.runs:,} runs"
        for what, fleet in found.items()
    ]
    return "exhausted first: " + ", then ".join(sizes) + "."


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=31)
    asked = parser.parse_args()
    start, updates = measure_workers()
    requests = measure_servers()
    operations, first_look, size, texts = measure_operations(asked.runs, asked.seconds)
    costs = Costs(*operations[ALONE], first_look, size)
    rows = [(what, f"{all_of:.1f}", f"{writing:.1f}") for what, (all_of, writing) in operations.items()]
    parts = [
        "# Workers and servers on one store",
        report.environment("numpy", "fastapi", "uvicorn", "filelock"),
        show_costs(start, updates, requests),
        f"Operations on a store of {asked.runs} runs, counted for {asked.seconds:g} s; {texts:,} texts were "
        f"written meanwhile. A worker's first reading of all runs takes {first_look:.1f} for each run. "
        f"The run is a GRU of {ENDLESS.hidden} units; its checkpoints have {size / 1e6:.1f} MB.",
        report.table(("", "operations/s", "of which write"), rows),
    ]
    for volume in VOLUMES:
        named = dataclasses.replace(WHOLE, follows=False)
        parts += [f"## {volume.name}", described(volume), show_fleet(WHOLE, costs, volume)]
        parts.append("Servers that answer from the newest checkpoint: " + show_breaks(WHOLE, costs, volume))
        parts.append("Servers that answer from a named model: " + show_breaks(named, costs, volume))
    report.save("scale", "\n\n".join(parts))


def described(volume):
    return (
        f"It gives {volume.operations:,.0f} operations a second, {volume.writes:,.0f} of them writes, "
        f"{volume.read_bytes / 1e6:,.0f} MB/s to readers, {volume.written_bytes / 1e6:,.0f} MB/s to writers, "
        f"and an answer in {1000 * volume.latency:g} ms. The shares are of that."
    )


if __name__ == "__main__":
    main()
