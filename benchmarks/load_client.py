"""A client process for load: keep-alive connections, each sending a request once the last one is answered.

    python -m benchmarks.load_client PORT CLIENTS SECONDS stream|plain

Uses the sockets of asyncio, because a full HTTP client would need more time than the measured servers. Prints
JSON: requests, rates, latencies in ms (p50, p99), failures and, for streams, the time to the first character.
"""

import asyncio
import json
import statistics
import sys
import time

LENGTH = 200
LATEST = 30  # seconds allowed for the last answers


def request(port, index, stream):
    body = json.dumps(
        {"prompt": "\n", "length": LENGTH, "seed": index} | ({"stream": True} if stream else {})
    )
    head = f"POST /generate HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


async def answer(reader):
    """(status, body, time of the first piece of the body) of one response."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    if b"content-length:" in head:
        body = await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        return status, body, time.perf_counter()
    pieces, first = [], None
    while size := int(await reader.readline(), 16):
        pieces.append((await reader.readexactly(size + 2))[:-2])
        first = first or time.perf_counter()
    await reader.readline()
    return status, b"".join(pieces), first


async def client(port, index, end, stream, results):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while time.perf_counter() < end:
        start = time.perf_counter()
        writer.write(request(port, index * 100_000 + count, stream))
        status, _, first = await answer(reader)
        results.append((status, time.perf_counter() - start, first - start))
        count += 1
    writer.close()


async def load(port, clients, seconds, stream):
    results = []
    start = time.perf_counter()
    async with asyncio.timeout(seconds + LATEST):
        await asyncio.gather(*(client(port, i, start + seconds, stream, results) for i in range(clients)))
    taken = time.perf_counter() - start
    latencies = sorted(latency * 1000 for status, latency, _ in results if status == 200)
    good = len(latencies)
    return {
        "requests": len(results),
        "requests_per_second": good / taken,
        "characters_per_second": good * LENGTH / taken,
        "p50": statistics.median(latencies) if good else None,
        "p99": latencies[int(0.99 * (good - 1))] if good else None,
        "first_character_p50": statistics.median(first * 1000 for _, _, first in results),
        "failed": len(results) - good,
    }


def main():
    port, clients, seconds, kind = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        run = asyncio.run
    print(json.dumps(run(load(port, clients, seconds, kind == "stream"))))


if __name__ == "__main__":
    main()
