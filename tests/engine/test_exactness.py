"""Same checkpoint, seed and request give the same bytes, whatever shares the batch, streamed or not."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.store.run_store import RunStore
from model.checkpoint import load
from tests.support.requests import alone, any_request, ask
from tests.support.servers import server_process

REQUESTS = 500


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_500_concurrent_requests_give_the_bytes_of_each_alone(trained, processes):
    rng = random.Random(5)
    requests = [any_request(rng) for _ in range(REQUESTS)]
    store = RunStore(trained.root)
    paths = {f"gru@{step}": store.get("gru").checkpoint_path(step) for step in (40, 60)}
    paths["classic@60"] = store.get("classic").checkpoint_path(60)
    checkpoints = {name: load(path) for name, path in paths.items()}
    expected = [alone(request, checkpoints) for request in requests]
    assert len(set(expected)) > REQUESTS / 3
    for streams in (3, 1):  # of every four requests; the second time after a restart
        with server_process(trained.root, processes=processes) as client, ThreadPoolExecutor(64) as pool:
            jobs = [
                pool.submit(ask, client, request, at % 4 < streams) for at, request in enumerate(requests)
            ]
            found = [job.result() for job in jobs]
        differing = [at for at in range(REQUESTS) if found[at] != expected[at]]
        assert not differing, requests[differing[0]]
