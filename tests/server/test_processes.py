"""`charloom serve --processes 2`: the promises of one process hold for all processes together."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from app.main import build_server
from app.server.process import AddressError, listen
from app.server.processes import ServerProcess
from app.server.shared import Shared
from app.settings import Settings
from app.store.run_store import RunStore
from tests.support.metrics import NAMES, scrape
from tests.support.processes import Process, accepted, children, each, supervisor, wait_for_processes
from tests.support.runs import LONGEST_WAIT, small_text, wait_until
from tests.support.servers import server_process

pytestmark = pytest.mark.slow

TEXT = {"prompt": "the ", "length": 40, "seed": 7, "temperature": 0.8}
LONG = {"max_length": 1_000_000, "deadline_seconds": 600}
# more than is written in half a minute, or buffered between the server and a client that does not read
STREAM = {"length": 1_000_000, "n": 16, "stream": True}
Pair = list[Process]


@pytest.fixture(scope="module")
def pair(trained_root: Path) -> Iterator[Pair]:
    """The two processes of a server over the finished runs; not for tests that change the store."""
    with server_process(trained_root, processes=2) as client:
        yield each(client)


@pytest.mark.parametrize(
    "path",
    ["/", "/openapi.json", "/runs", "/loss-curve.svg?model=gru", "/loss-curve.png", "/samples", "/v1/models"],
)
def test_each_process_answers_with_the_same_bytes(pair: Pair, path: str):
    first, second = (client.get(path, headers={"accept": "*/*"}) for client in pair)
    assert first.status_code == second.status_code == 200
    assert first.content == second.content
    assert first.headers.get("etag") == second.headers.get("etag")


def test_each_process_writes_the_same_text(pair: Pair):
    first, second = (client.post("/generate", json=TEXT).content for client in pair)
    assert first == second
    assert {client.get("/readyz").json()["model"] for client in pair} == {"gru@60"}


def test_gradient_check_requested_from_both_processes_runs_once(pair: Pair):
    def helpers() -> set[int]:
        return {helper for client in pair for helper in children(client.pid)}

    before = helpers()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda client: client.get("/gradcheck?cell=lstm").json(), pair)
    assert first == second, "it ran twice, as its duration differs"
    assert len(helpers() - before) == 1, "each process started a helper"
    assert first["passed"] is True


def test_picture_drawn_by_one_process_is_reused_by_the_other(pair: Pair):
    pictures = [client.get("/loss-curve.svg?model=classic&theme=dark").content for client in pair]
    assert pictures[0] == pictures[1]
    [shared] = shared_folders(supervisor(pair[0].pid))
    assert pictures[0] in {path.read_bytes() for path in (shared / "pictures").iterdir()}


def shared_folders(pid: int) -> list[Path]:
    """The directories that the processes of supervisor `pid` share, found by their open files."""
    found = set()
    for child in children(pid):
        for path in Path(f"/proc/{child}/fd").iterdir():
            target = Path(os.readlink(path))
            if target.name == "streams.places":
                found.add(target.parent)
    return sorted(found)


def test_metrics_of_any_process_are_the_sum_of_all(pair: Pair):
    before = scrape(pair[0])
    for client, length in zip(pair, (30, 40), strict=True):
        client.post("/generate", json=TEXT | {"length": length}).raise_for_status()
    for client in pair:
        values = scrape(client)

        def added(name: str, label: str = "", values: dict[tuple[str, str], float] = values) -> float:
            return values[name, label] - before[name, label]

        assert added("generation_tokens_total") == 70
        assert added("request_success_total", "length") == 2
        assert added("e2e_request_latency_seconds_count") == 2
        assert values["runs", "finished"] == 2
        assert values["train_step", ""] == 60
        assert values["num_requests_running", ""] == values["batch_size", ""] == 0
    found = text_string_to_metric_families(pair[0].get("/metrics").text)
    families = {one.name: one.type for one in found if not one.name.startswith("process_")}
    assert families == {f"charloom_{name}": kind for name, kind in NAMES.items()}
    memory = values["process_resident_memory_bytes", ""]
    assert memory == pytest.approx(sum(resident(client.pid) for client in pair), rel=0.2)


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_running_text_is_in_the_metrics_of_the_other_process(trained: RunStore):
    with server_process(trained.root, processes=2, grace_seconds=0, **LONG) as client:
        pair = each(client)
        with pair[0].stream("POST", "/generate", json=STREAM) as answer:
            lines = answer.iter_lines()  # a reference: without it the connection is closed
            next(lines)

            def shown() -> bool:
                values = scrape(pair[1])
                running, batch = values["num_requests_running", ""], values["batch_size", ""]
                return running == batch == 16 and values["backlog_characters", ""] > 0

            wait_until(shown, "the other process reports it")
        wait_until(lambda: scrape(pair[1])["num_requests_running", ""] == 0, "the other process sees its end")
        pids, before = [one.pid for one in pair], scrape(pair[1])["generation_tokens_total", ""]
        assert before > 0
        os.kill(pids[0], signal.SIGKILL)
        wait_for_processes(client, loads=3)
        after = scrape(pair[1])
        assert after["generation_tokens_total", ""] >= before, "the counts of the killed process are lost"
        assert after["num_requests_running", ""] == 0


def test_changes_through_one_process_are_seen_by_the_other(trained: RunStore):
    with server_process(trained.root, processes=2) as client:
        first, second = each(client)
        made = first.post("/runs?name=mine&steps=50", content=small_text().encode())
        assert made.status_code == 202, made.text
        assert second.get("/runs/mine").json()["state"] == "queued"
        assert "mine" in second.get("/runs").text
        assert second.request("PATCH", "/runs/mine", json={"action": "pause"}).json()["state"] == "paused"
        assert first.get("/runs/mine").json()["state"] == "paused"
        assert first.request("PATCH", "/runs/mine", json={"action": "resume"}).json()["state"] == "queued"
        assert second.get("/runs/mine").json()["state"] == "queued"
        assert first.post("/runs/gru/keep", json={"step": 40}).status_code == 200
        assert second.post("/runs/gru/keep", json={"step": 60}).json()["kept"] == 2
        files = {"file": ("mine.txt", small_text().encode()), "purpose": (None, "fine-tune")}
        file = first.post("/v1/files", files=files).json()["id"]
        assert second.get(f"/v1/files/{file}/content").text == small_text()
        job = second.post("/v1/fine_tuning/jobs", json={"model": "auto", "training_file": file}).json()["id"]
        assert first.get(f"/v1/fine_tuning/jobs/{job}").json()["training_file"] == file
        archive = first.get("/runs/classic/export?text=true").content
        imported = first.post("/runs/import?name=copied", content=archive)
        assert imported.status_code in (200, 201), imported.text
        texts = [
            one.post("/generate", json=TEXT | {"model": "copied@60"}).json()["text"]
            for one in (second, first)
        ]
        assert (
            texts[0]
            == texts[1]
            == first.post("/generate", json=TEXT | {"model": "classic@60"}).json()["text"]
        )
        assert first.request("DELETE", "/runs/copied").status_code == 200
        assert second.get("/runs/copied").status_code == 404
        assert second.post("/generate", json=TEXT | {"model": "copied@60"}).status_code == 404
        assert second.request("DELETE", f"/v1/files/{file}").status_code == 200
        assert first.get(f"/v1/files/{file}").status_code == 404


def test_rate_limit_is_shared_by_all_processes(trained: RunStore):
    settings = {"rate_limit": "5/hour", "api_keys": "ann:s3cret,bob:hunter2"}
    with server_process(trained.root, processes=2, **settings) as client:
        with_keys(client, "ann")
        pair = each(client)
        statuses = [pair[at % 2].post("/generate", json=TEXT).status_code for at in range(3)]
        statuses += [pair[1].post("/generate", json=TEXT | {"n": 2}).status_code]
        assert statuses == [200] * 4
        refused = [one.post("/generate", json=TEXT) for one in pair]
        assert [answer.status_code for answer in refused] == [429, 429]
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        with_keys(pair[0], "bob")
        assert pair[0].post("/generate", json=TEXT).status_code == 200


def with_keys(client: httpx.Client | Process, name: str) -> None:
    secret = {"ann": "s3cret", "bob": "hunter2"}[name]
    client.headers["authorization"] = f"Bearer {secret}"


def test_places_are_shared_and_released_after_a_kill(trained: RunStore):
    settings = {"max_uploads": 1, "max_streams": 1, "grace_seconds": 0} | LONG
    with server_process(trained.root, processes=2, **settings) as client:
        first, second = each(client)
        short = {"length": 5, "stream": True}
        with first.stream("POST", "/generate", json=STREAM) as answer:
            lines = answer.iter_lines()  # a reference: without it the connection is closed
            next(lines)
            refused = second.post("/generate", json=short)
            assert refused.status_code == 429
            assert "1 of 1 streams are open" in refused.text
            os.kill(first.pid, signal.SIGKILL)
            wait_until(
                lambda: second.post("/generate", json=short).status_code == 200,
                "the place of the killed process is free",
            )
        pair = each(client, loads=3)
        port = client.base_url.port
        with socket.create_connection(("127.0.0.1", port)) as upload:
            upload.sendall(b"POST /runs HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\nhalf")
            wait_until(lambda: pair[0].post("/runs", content=b"x").status_code == 429, "its place is taken")
            answers = [one.post("/runs", content=b"x") for one in pair]
            assert [answer.status_code for answer in answers] == [429, 429]
            assert "1 of 1 uploads are in progress" in answers[0].text


def streams_of(pair: Pair, length: int) -> tuple[list[threading.Thread], list[list[str]]]:
    """Started streams, one from each process in its own thread, and the lines received so far."""
    lines: list[list[str]] = [[] for _ in pair]

    def read(client: Process, into: list[str]) -> None:
        try:
            with client.stream("POST", "/generate", json={"length": length, "stream": True}) as answer:
                into.extend(answer.iter_lines())
        except httpx.TransportError:
            into.append("connection lost")

    threads = [
        threading.Thread(target=read, args=(client, into), daemon=True)
        for client, into in zip(pair, lines, strict=True)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(lines), "both streams have started")
    return threads, lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_drains_the_streams_of_all_processes(trained: RunStore, number: int):
    limits = {"max_length": 200_000, "grace_seconds": 60, "deadline_seconds": 60}
    with server_process(trained.root, processes=2, **limits) as client:
        pair = each(client)
        threads, lines = streams_of(pair, 60_000)
        [shared] = shared_folders(client.process.pid)
        # otherwise Ctrl-C in a terminal would also reach them, as a second signal
        assert all(os.getpgid(one.pid) == os.getsid(one.pid) == one.pid for one in pair)
        client.process.send_signal(number)
        for thread in threads:
            thread.join(LONGEST_WAIT)
        assert all("event: done" in received for received in lines), [received[-4:] for received in lines]
        assert client.process.wait(LONGEST_WAIT) == 0
        assert not shared.exists()
        assert not any(alive(one.pid) for one in pair)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_second_interrupt_ends_all_processes_immediately(trained: RunStore):
    limits = {"max_length": 3_000_000, "grace_seconds": 60, "deadline_seconds": 60}
    with server_process(trained.root, processes=2, **limits) as client:
        pair = each(client)
        threads, lines = streams_of(pair, 3_000_000)
        began = time.monotonic()
        client.process.send_signal(signal.SIGINT)
        time.sleep(1.5)
        assert all(thread.is_alive() for thread in threads), "the grace period was not granted"
        client.process.send_signal(signal.SIGINT)
        assert client.process.wait(LONGEST_WAIT) == 0
        assert time.monotonic() - began < 30, "it waited for the end of the grace period"
        for thread, received in zip(threads, lines, strict=True):
            thread.join(LONGEST_WAIT)
            assert "event: error" in received or "connection lost" in received


def test_killed_process_loses_only_its_requests_and_is_replaced(trained: RunStore):
    with server_process(trained.root, processes=2) as client:
        pids = wait_for_processes(client)
        expected = client.post("/generate", json=TEXT).json()["text"]
        end, lost = threading.Event(), []

        def load(number: int) -> int:
            """Send requests one after another on a kept connection; return how many were answered."""
            count = 0
            with httpx.Client(base_url=client.base_url, timeout=LONGEST_WAIT) as own:
                while not end.is_set():
                    try:
                        answer = own.post("/generate", json=TEXT)
                    except httpx.TransportError:
                        lost.append(number)
                        continue
                    assert answer.status_code == 200, answer.text
                    assert answer.json()["text"] == expected
                    count += 1
            return count

        with ThreadPoolExecutor(16) as pool:
            jobs = [pool.submit(load, number) for number in range(16)]
            try:
                time.sleep(1)
                os.kill(pids[0], signal.SIGKILL)
                replaced = wait_for_processes(client, loads=3)
                time.sleep(1)
            finally:
                end.set()
            counts = [job.result() for job in jobs]
        assert pids[0] not in replaced
        assert pids[1] in replaced
        assert all(counts)
        assert len(lost) == len(set(lost)) <= 16, "a client lost more than the request in flight"


def test_hanging_process_is_detected_and_replaced(trained: RunStore, tmp_path: Path):
    log = tmp_path / "log"
    with server_process(trained.root, processes=2, log=log, grace_seconds=1) as client:
        pids = wait_for_processes(client)
        began = time.monotonic()
        os.kill(pids[0], signal.SIGSTOP)
        wait_until(lambda: pids[0] not in children(client.process.pid), "the process is ended")
        assert time.monotonic() - began < 30
        replaced = wait_for_processes(client, loads=3)
        assert pids[1] in replaced
        assert f"server process {pids[0]} did not answer for 5 s" in log.read_text()
        assert client.post("/generate", json=TEXT).status_code == 200
        # a process that hangs during shutdown does not delay the others
        os.kill(replaced[0], signal.SIGSTOP)
        client.process.terminate()
        assert client.process.wait(LONGEST_WAIT) == 0
        assert not alive(replaced[0])


def test_processes_end_when_their_supervisor_is_killed(trained: RunStore):
    with server_process(trained.root, processes=2, grace_seconds=1) as client:
        pids = wait_for_processes(client)
        [shared] = shared_folders(client.process.pid)
        client.process.kill()
        try:
            wait_until(lambda: not any(alive(pid) for pid in pids), "the processes end")
        finally:
            for pid in filter(alive, pids):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not shared.exists(), "the shared directory is removed")


def test_burst_of_connections_is_divided_among_the_processes(pair: Pair):
    """From a socket they share, the process that wakes up first takes a whole burst, and a core idles."""
    address = pair[0].base_url.host, pair[0].base_url.port
    for _ in range(5):
        with contextlib.ExitStack() as stack:
            burst = [stack.enter_context(socket.create_connection(address)) for _ in range(64)]
            ports = {one.getsockname()[1] for one in burst}
            wait_until(lambda: sum(len(accepted(one.pid, ports)) for one in pair) == 64, "all are accepted")  # noqa: B023
            assert min(len(accepted(one.pid, ports)) for one in pair) >= 12


def test_port_of_another_server_is_refused():
    """Its processes share the port with each other, not with a second server."""
    for processes in (1, 2):
        listeners = listen("127.0.0.1", 0, processes)
        port = listeners[0].getsockname()[1]
        for wanted in (1, 2):
            with pytest.raises(AddressError, match="Address already in use"):
                listen("127.0.0.1", port, wanted)
        for listener in listeners:
            listener.close()


def test_process_with_a_hanging_event_loop_does_not_answer(trained_root: Path):
    """A thread answers the supervisor; it must not answer for an event loop that hangs."""
    settings = Settings(store=trained_root)
    process = ServerProcess(uvicorn.Config(""), [], build_server, settings, Shared(Path("none"), 0, 2))
    server = build_server(settings, lifespan=False)
    server.loop, resume = asyncio.new_event_loop(), threading.Event()
    running = threading.Thread(target=server.loop.run_forever)
    running.start()
    try:
        server.serving.set()
        threading.Thread(target=process._answer, args=(server,), daemon=True).start()
        assert process.parent_conn.recv() is True
        assert process.ping(LONGEST_WAIT)
        server.loop.call_soon_threadsafe(resume.wait)
        assert not process.ping(0.2)
        resume.set()
        assert process.parent_conn.poll(LONGEST_WAIT)
    finally:
        resume.set()
        server.loop.call_soon_threadsafe(server.loop.stop)
        running.join()
        server.loop.close()
