"""Several workers and servers on one store: urgent runs, a disconnected volume, concurrent requests."""

import socket
import subprocess
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import httpx
import pytest
from threadpoolctl import threadpool_limits

from app.store.control import ask
from app.store.run import Run
from app.store.run_store import RunStore
from app.training.queue import Queue
from app.training.trainer import train_run
from tests.support.hosts import LONG, SHORT, Host, ended, finished, permitted, separate_hosts
from tests.support.runs import LONGEST_WAIT, classic_like, gru_like, outcome, small_text, wait_until
from tests.support.servers import server_process

TEXT = small_text(2000)
ENDLESS = classic_like(steps=1_000_000, sample_every=0, checkpoint_every=1000, record_every=100)
PLAIN = {"content-type": "text/plain"}


@pytest.fixture
def context() -> ForkServerContext:
    return separate_hosts()


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "store")


def undisturbed(folder: Path, run: Run) -> dict[str, Any]:
    again = RunStore(folder).create(run.name, run.config, run.text(), "small.txt")
    with threadpool_limits(1):
        assert train_run(again, lambda: False)
    return outcome(again)


SLOW_TO_STOP = """
import time
from app.training.trainer import RunWriter

end = RunWriter.end
RunWriter.end = lambda writer: time.sleep(2.0) or end(writer)  # simulates a slow disk
"""


@pytest.mark.slow
def test_only_one_worker_interrupts_its_run_for_an_urgent_one(store: RunStore, context):
    runs = [store.create(f"run-{number}", ENDLESS, TEXT, "small.txt") for number in range(3)]
    hosts = [Host(context, store, f"host-{n}", lease=30.0, setup=SLOW_TO_STOP) for n in range(3)]
    with ended(*hosts):
        wait_until(lambda: all(run.status.step > 0 for run in runs), "each host trains a run")
        urgent = store.create("urgent", SHORT, TEXT, "small.txt")
        ask(store, urgent, None, 5)
        wait_until(lambda: finished(urgent), "the urgent run is finished")
        wait_until(lambda: "continues from step" in "".join(host.log for host in hosts), "the run continues")
        wait_until(lambda: {run.status.state for run in runs} == {"training"}, "all runs are trained again")
        assert "".join(host.log for host in hosts).count("continues from step") == 1
        assert len({run.status.host for run in runs}) == 3


REACH_THE_TEST = """
import socket
try:
    socket.create_connection(("127.0.0.1", {port}), 5).close()
except OSError:
    pass
else:
    raise SystemExit("the host reaches the network of the test")
"""


@pytest.mark.slow
def test_worker_needs_nothing_but_the_store(store: RunStore, context, tmp_path: Path):
    if not permitted("--net"):
        pytest.skip("cannot give a process a network of its own: that takes root")
    run = store.create("run", SHORT, TEXT, "small.txt")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        setup = REACH_THE_TEST.format(port=listener.getsockname()[1])
        host = Host(context, store, "alone", until_idle=True, setup=setup)
        with ended(host):
            host.join()
    assert outcome(run) == undisturbed(tmp_path / "undisturbed", run)


OWN_MOUNTS = """
import ctypes, subprocess
assert ctypes.CDLL(None).unshare(0x20000) == 0
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
"""


def in_mounts_of(host: Host, *command: str) -> None:
    enter = ["nsenter", "--target", str(host.process.pid), "--mount"]
    subprocess.run([*enter, *command], check=True, timeout=LONGEST_WAIT)


@pytest.mark.slow
def test_disconnected_host_loses_its_run_and_rejoins_later(store: RunStore, context, tmp_path: Path):
    run = store.create("run", LONG, TEXT, "small.txt")
    first = Host(context, store, "first", setup=OWN_MOUNTS)
    with ended(first):
        wait_until(lambda: run.status.step > 200, "the first host trains the run")
        in_mounts_of(first, "mount", "-t", "tmpfs", "cut-off", str(store.root))
        second = Host(context, store, "second")
        with ended(second):
            wait_until(lambda: run.status.host == "second", "the second host takes over")
            in_mounts_of(first, "umount", str(store.root))
            other = store.create("other", SHORT, TEXT, "small.txt")
            wait_until(lambda: finished(other) and finished(run), "both runs are finished")
    assert (run.status.host, first.process.exitcode is None) == ("second", False)
    assert outcome(run) == undisturbed(tmp_path / "undisturbed", run)
    assert outcome(other) == undisturbed(tmp_path / "undisturbed", other)


@pytest.mark.slow
def test_two_servers_and_three_workers_lose_no_run(store: RunStore, context, tmp_path: Path):
    options = {"preset": "classic", "hidden": 8, "sequence_length": 10, "sample_every": 0, "steps": 1500}
    store.make_root()
    with server_process(store.root) as one, server_process(store.root) as other:
        servers, names = (one, other), [f"run-{number}" for number in range(6)]
        hosts = [Host(context, store, f"host-{number}") for number in range(3)]
        with ended(*hosts):

            def upload(server: httpx.Client, name: str, **more: int) -> None:
                answer = server.post(
                    "/runs", params=options | more | {"name": name}, content=TEXT, headers=PLAIN
                )
                assert answer.status_code == 202, answer.text

            for number, name in enumerate(names):
                upload(servers[number % 2], name)
            upload(one, "unwanted", steps=1_000_000)
            assert other.patch("/runs/unwanted", json={"priority": 9}).status_code == 200
            wait_until(
                lambda: one.get("/runs/unwanted").json()["host"] is not None, "the unwanted run is trained"
            )
            assert other.delete("/runs/unwanted").status_code == 200
            assert one.get("/runs/unwanted").status_code == 404
            hosts[0].process.kill()
            runs = [store.get(name) for name in names]
            wait_until(lambda: all(finished(run) for run in runs), "all runs are finished")
        for server, name in zip((other, one) * 3, names, strict=True):
            assert server.get(f"/runs/{name}").json()["state"] == "finished"
            body = {"model": name, "length": 20, "seed": 1}
            texts = {client.post("/generate", json=body).json()["text"] for client in servers}
            assert len(texts) == 1
    for run in runs:
        assert outcome(run) == undisturbed(tmp_path / "undisturbed", run)


def test_run_with_more_parts_than_cores_is_left_to_other_workers(store: RunStore):
    store.create("large", gru_like(members=3), TEXT, "small.txt")
    small = store.create("small", SHORT, TEXT, "small.txt")
    strict, patient = Queue(store, 2, float("inf")), Queue(store, 2, 0.0)
    for queue in (strict, patient):
        queue.look()
    assert strict.first().name == "small"
    assert patient.first().name == "large"
    small.write_status(small.status.model_copy(update={"state": "finished"}))
    strict.look()
    assert strict.first() is None
    assert strict.idle()
    assert not patient.idle()
