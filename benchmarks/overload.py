"""Ten times as many clients as the server has places, all at once: health checks, refusals and retries.

    python -m benchmarks.overload [--clients 3200] [--length 1000]

Each client wants one text. A refused client retries after the time that the server names.
"""

import argparse
import asyncio
import json
import resource
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import report
from benchmarks.load_client import answer
from benchmarks.serve_load import command_of, free_port, make_store, served

LATEST = 240  # seconds


def message(method, path, port, body=b""):
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def ask(port, method, path, body=b""):
    """(status, body, time of the first piece of the body) of a request on a new connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(message(method, path, port, body))
        return await answer(reader)
    finally:
        writer.close()


async def client(port, seed, length, tries, waits):
    """Request a text until it is returned; note the number of tries and the retry times."""
    body = json.dumps({"prompt": "\n", "length": length, "seed": seed}).encode()
    for count in range(1, 1000):
        status, content, _ = await ask(port, "POST", "/generate", body)
        if status == 200:
            tries.append(count)
            return
        assert status == 429, content
        wait = float(json.loads(content)["error"]["message"].rpartition("about ")[2].split()[0])
        waits.append(wait)
        await asyncio.sleep(max(0.001, wait))


async def watch(port, latencies):
    while True:
        start = time.perf_counter()
        status, _, _ = await ask(port, "GET", "/healthz")
        assert status == 200
        latencies.append(1000 * (time.perf_counter() - start))
        await asyncio.sleep(0.02)


async def overload(port, clients, length):
    tries, waits, latencies = [], [], []
    await ask(port, "POST", "/generate", b'{"length": 2000}')  # makes the rate known
    watching = asyncio.create_task(watch(port, latencies))
    start = time.perf_counter()
    async with asyncio.timeout(LATEST):
        await asyncio.gather(*(client(port, seed, length, tries, waits) for seed in range(clients)))
    seconds = time.perf_counter() - start
    watching.cancel()
    return tries, waits, latencies, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=3200)
    parser.add_argument("--length", type=int, default=1000)
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        make_store(Path(folder))
        quiet = {"CHARLOOM_LOG_LEVEL": "warning", "CHARLOOM_ACCESS_LOG": "false"}
        stack.enter_context(served(command_of(folder, port), port, quiet))
        tries, waits, latencies, seconds = asyncio.run(overload(port, arguments.clients, arguments.length))
    rows = [
        ("clients, each with one text to get", arguments.clients),
        ("places (64 written, 256 waiting)", 320),
        ("texts written", len(tries)),
        ("refusals", len(waits)),
        ("seconds told to wait, median", f"{statistics.median(waits):.2f}" if waits else "–"),
        ("asked how often, median and most", f"{statistics.median(tries):.0f}, {max(tries)}"),
        ("texts a second", f"{len(tries) / seconds:.0f}"),
        ("/healthz, ms, median", f"{statistics.median(latencies):.1f}"),
        ("/healthz, ms, p99", f"{sorted(latencies)[int(0.99 * (len(latencies) - 1))]:.1f}"),
    ]
    environment = report.environment("numpy", "fastapi", "uvicorn")
    report.save("overload", "\n\n".join(["# Overload", environment, report.table(("", ""), rows)]))


if __name__ == "__main__":
    main()
