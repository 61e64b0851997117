"""Ten times the capacity: the server stays healthy, refuses the excess, and gives usable retry times."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.servers import server_process

CAPACITY = 4 + 8  # texts


@pytest.mark.slow
def test_overload_is_refused_and_admitted_texts_are_complete(trained):
    with (
        server_process(trained.root, max_rows=4, max_queue=8) as client,
        ThreadPoolExecutor(10 * CAPACITY) as pool,
    ):
        client.post("/generate", json={"length": 2000})  # makes the rate known
        asked = [
            pool.submit(
                client.post, "/generate", json={"length": 9000, "seed": seed, "stream": seed % 2 == 0}
            )
            for seed in range(10 * CAPACITY)
        ]
        while not all(job.done() for job in asked):
            assert client.get("/healthz").status_code == 200
        answers = [job.result() for job in asked]
        written = [answer for answer in answers if answer.status_code == 200]
        shed = [answer for answer in answers if answer.status_code == 429]
        assert len(written) + len(shed) == len(answers)
        assert len(written) >= CAPACITY
        assert shed, "nothing was refused: the load did not exceed the capacity"
        for answer in written:
            assert "event: error" not in answer.text
            assert '"finish_reason":"length"' in answer.text
        for answer in shed:
            check_retry_time(answer)
        again = client.post("/generate", json={"length": 9000})
        assert again.status_code == 200


def check_retry_time(answer: httpx.Response) -> None:
    assert answer.json()["error"]["code"] == "overloaded"
    milliseconds = int(answer.headers["retry-after-ms"])
    assert int(answer.headers["retry-after"]) == max(1, -(-milliseconds // 1000))


def refusal(client: httpx.Client, pool: ThreadPoolExecutor) -> httpx.Response:
    """A refusal by the full server. On a busy machine the texts may end before the next request."""
    for _ in range(20):
        filling = pool.submit(client.post, "/generate", json={"length": 10_000, "n": 4})
        while not filling.done():
            answer = client.post("/generate", json={"length": 10})
            if answer.status_code == 429:
                return answer
    raise AssertionError("the server was never full")


@pytest.mark.slow
def test_request_after_the_retry_time_is_admitted(trained):
    with server_process(trained.root, max_rows=2, max_queue=2) as client, ThreadPoolExecutor(4) as pool:
        client.post("/generate", json={"length": 2000})
        refused = refusal(client, pool)
        time.sleep(int(refused.headers["retry-after-ms"]) / 1000)
        # the machine may have become slower since the time was estimated, but not by much
        for _ in range(20):
            answer = client.post("/generate", json={"length": 10})
            if answer.status_code == 200:
                return
            time.sleep(int(answer.headers["retry-after-ms"]) / 1000)
        raise AssertionError("the request was never admitted")
