"""Attacks on a real server, and what each of them costs the server.

    python -m tests.faults.attacks --seconds 10

Starts a server for each attack, attacks it and requests `/healthz` every 100 ms. Prints a Markdown table.
The exit code is 1 if the server used more than 400 MB, if the 99th percentile of the health answers was over
500 ms, or if an answer was not one that the attack expects.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import math
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from app.store import history
from app.store.run_store import RunStore
from app.training.trainer import train_run
from tests.faults.attackers import ATTACKS, Attack, Target
from tests.support.processes import children
from tests.support.runs import classic_like, gru_like, small_text
from tests.support.servers import server_process
from tests.support.sockets import memory

MOST_BYTES, MOST_SECONDS = 400e6, 0.5
PROBE_SECONDS = 0.1
TEXT_CHARACTERS = 40_000_000
POINTS = 20_000


def probe(port: int, begun: float, end: float, answers: Connection) -> None:
    """Request the health every PROBE_SECONDS; send the duration of each answer, infinity if there was none.

    Durations count from the time when a probe was due, so a server that stalls fails all probes of that time.
    """
    times, due = [], begun
    while due < end:
        time.sleep(max(0.0, due - time.monotonic()))
        ok = False
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", "/healthz")
            ok = connection.getresponse().status == 200
        times.append(time.monotonic() - due if ok else math.inf)
        due += PROBE_SECONDS
    answers.send(times)


def helpers_memory(pid: int) -> float:
    """Resident memory of the processes that the server has started, in bytes."""
    total = 0
    for child in children(pid, b""):
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{child}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return total


@dataclass
class Result:
    """The cost of an attack: memory in bytes, seconds of each health answer, and counts of the answers."""

    peak: float
    helpers: float
    health: list[float]
    seen: Counter[str]

    def quantile(self, share: float) -> float:
        return sorted(self.health)[round(share * (len(self.health) - 1))]

    def faults(self, expected: frozenset[str]) -> list[str]:
        found = [f"answered {one}" for one in self.seen if one not in expected]
        if self.peak > MOST_BYTES:
            found.append(f"took over {MOST_BYTES / 1e6:.0f} MB")
        if self.quantile(0.99) > MOST_SECONDS:
            found.append(f"health took over {1000 * MOST_SECONDS:.0f} ms")
        return found


def run_attack(one: Attack, root: Path, seconds: float) -> Result:
    context = multiprocessing.get_context("spawn")
    with server_process(root, access_log=False, **one.settings) as client:
        receiver, sender = context.Pipe(duplex=False)
        begun = time.monotonic() + 3.0  # the probing process starts in this time
        target = Target(client.base_url.port or 0, begun + seconds)
        prober = context.Process(target=probe, args=(target.port, begun, target.end, sender))
        prober.start()
        sender.close()  # so that a failing prober ends the loop
        time.sleep(max(0.0, begun - time.monotonic()))
        attacking = threading.Thread(target=one.run, args=(target,))
        attacking.start()
        peak = helpers = 0.0
        while attacking.is_alive() or not receiver.poll():
            peak = max(peak, memory(client))
            helpers = max(helpers, helpers_memory(client.process.pid))
            time.sleep(PROBE_SECONDS)
        health = receiver.recv()
        prober.join()
        return Result(peak, helpers, health, target.seen)


def make_store(root: Path) -> None:
    """Two trained runs, one with long samples; a run on a long text; a queued run with a long curve."""
    store = RunStore(root)
    train_run(store.create("classic", classic_like(), small_text(), "small.txt"), lambda: False)
    gru = store.create("gru", gru_like(), small_text(), "small.txt")
    train_run(gru, lambda: False)
    with gru.samples_path.open("ab") as file:
        for step in range(100, 120):
            file.write(history.encode({"step": step, "kind": "sample", "text": os.urandom(200_000).hex()}))
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 9))) for _ in range(50_000)]
    text = " ".join(rng.choices(words, k=TEXT_CHARACTERS // 6))
    large = store.create("large", classic_like(steps=2), text, "large.txt")
    train_run(large, lambda: False)
    waiting = store.create("waiting", gru_like(), small_text(), "small.txt")
    last = gru.history()[-1]
    lines = (history.encode(last | {"step": step, "seconds": step / 10}) for step in range(POINTS))
    waiting.history_path.write_bytes(b"".join(lines))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each attack")
    parser.add_argument("--only", default="", help="part of the name of the attacks to run")
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    chosen = [one for one in ATTACKS if asked.only in one.name]
    if not chosen:
        parser.error(f"no attack has {asked.only!r} in its name")
    failed = False
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "store"
        make_store(root)
        print(f"Load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
        print("| attack | peak MB (helpers) | health median / p99 / max ms | answers | result |")
        print("|---|---|---|---|---|")
        for one in chosen:
            result = run_attack(one, root, asked.seconds)
            faults = result.faults(one.expected)
            failed |= bool(faults)
            memories = f"{result.peak / 1e6:.0f} ({result.helpers / 1e6:.0f})"
            health = " / ".join(f"{1000 * result.quantile(share):.0f}" for share in (0.5, 0.99, 1.0))
            seen = ", ".join(f"{outcome}: {count}" for outcome, count in sorted(result.seen.items()))
            print(
                f"| {one.name} | {memories} | {health} | {seen} | {'; '.join(faults) or 'ok'} |", flush=True
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
