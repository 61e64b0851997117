"""An export leaves no file behind and takes a place for a limited time, whatever the client does."""

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app.store.run_store import RunStore
from tests.support.overlap import Overlap
from tests.support.runs import wait_until

EXPORT = "/runs/gru/export"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("bytes=0-9", 206),
        ("bytes=-5", 206),
        ("bytes=0-1,5-6", 206),
        ("bytes=999999999999-", 416),
        (f"bytes={'9' * 5000}-", 416),
        ("bytes=-0", 416),
        ("bytes=0-1,999999999999-", 416),
        ("bytes=9-1", 400),
        ("bytes=", 400),
        ("bytes=0-1;x", 400),
        ("lines=1", 400),
        ("", 200),
    ],
)
def test_range_request_leaves_no_temporary_file(client: httpx.Client, temporary: Path, given, status):
    answer = client.get(EXPORT, headers={"range": given} if given else {})
    assert answer.status_code == status
    assert list(temporary.iterdir()) == []


def test_range_request_returns_that_part_of_the_export(client: httpx.Client):
    whole = client.get(EXPORT)
    part = client.get(EXPORT, headers={"range": "bytes=10-29", "if-range": whole.headers["etag"]})
    assert (part.status_code, part.content) == (206, whole.content[10:30])
    changed = client.get(EXPORT, headers={"range": "bytes=10-29", "if-range": '"other"'})
    assert changed.status_code == 200


def packed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The arguments of each export that is packed from now on."""
    from app.api.native import archives

    done: list[object] = []
    pack = archives.export
    monkeypatch.setattr(archives, "export", lambda *given: (done.append(given), pack(*given))[1])
    return done


def test_range_beyond_the_end_is_refused_without_packing_again(trained, serving, monkeypatch):
    client, done = serving(trained.root), packed(monkeypatch)
    for _ in range(3):
        refused = client.get(EXPORT, headers={"range": "bytes=999999999999-"})
        assert refused.status_code == 416
    assert len(done) == 1  # what is compressed has no size before
    size = int(refused.headers["content-range"].removeprefix("bytes */"))
    assert len(client.get(EXPORT).content) == size
    assert refused.json()["error"]["code"] == "range_not_satisfiable"
    assert str(size) in refused.json()["error"]["message"]
    assert client.get(EXPORT, headers={"range": f"bytes={size - 1}-"}).status_code == 206
    assert client.get(EXPORT, headers={"range": f"bytes={size}-"}).status_code == 416
    assert len(done) == 3
    trained.get("gru").samples_path.write_bytes(b"")  # another export, of another size
    assert client.get(EXPORT, headers={"range": f"bytes={size - 1}-"}).status_code == 416
    assert len(done) == 4
    assert client.app.state.services.downloads.taken == 0


@pytest.mark.parametrize("given", ["lines=1", "bytes=9-1", "bytes=x-"])
def test_header_that_is_not_a_range_is_refused_without_packing(trained, serving, monkeypatch, given):
    client, done = serving(trained.root), packed(monkeypatch)
    refused = client.get(EXPORT, headers={"range": given})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_request")
    assert f"must be like bytes=0-499 or bytes=-500. Given: {given}" in refused.json()["error"]["message"]
    assert done == []


def reader_that_does_not_read(client: httpx.Client, path: str) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.connect((client.base_url.host, client.base_url.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
    return connection


def open_files() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return found


@pytest.fixture
def large(trained: RunStore, serving: Callable[..., httpx.Client]) -> httpx.Client:
    """A server whose export, samples and uploaded file are large."""
    path = trained.get("gru").path
    line = b'{"step": %d, "kind": "sample", "text": "%s"}\n'
    samples = (line % (step, os.urandom(200_000).hex().encode()) for step in range(20))
    (path / "samples.jsonl").write_bytes(b"".join(samples))
    client = serving(trained.root)
    file = {"file": ("large.txt", os.urandom(4_000_000).hex())}
    uploaded = client.post("/v1/files", files=file, data={"purpose": "fine-tune"}).json()
    client.paths = {  # type: ignore[attr-defined]
        "export": EXPORT,
        "samples": "/samples?model=gru",
        "file": f"/v1/files/{uploaded['id']}/content",
    }
    return client


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["export", "samples", "file"])
def test_stalled_downloads_are_limited_in_number_and_time(
    large: httpx.Client, temporary: Path, monkeypatch, kind
):
    for module in ("server.streaming", "api.native.archives", "api.openai.files"):
        monkeypatch.setattr(f"app.{module}.LEAST_SECONDS", 8.0)
        monkeypatch.setattr(f"app.{module}.LEAST_SPEED", 1 << 40)
    path = large.paths[kind]  # type: ignore[attr-defined]
    whole = large.get(path)
    assert len(whole.content) == int(whole.headers["content-length"]) > 1_000_000
    services = large.app.state.services
    downloads = services.answers if kind == "samples" else services.downloads
    wait_until(lambda: downloads.taken == 0, "the answer has been read")
    downloads.limit = 3
    connections = [reader_that_does_not_read(large, path) for _ in range(3)]
    try:
        wait_until(lambda: downloads.taken == 3, "all places are taken")
        refused = large.get(path)
        assert (refused.status_code, refused.headers["retry-after"] > "0") == (429, True)
        began = time.monotonic()
        assert large.get("/runs").status_code == 200
        assert time.monotonic() - began < 5
        assert list(temporary.iterdir()) == []
        wait_until(lambda: downloads.taken == 0, "the places are free again")
        wait_until(lambda: not any(str(temporary) in path for path in open_files()), "the files are closed")
        assert large.get(path).content == whole.content
    finally:
        for connection in connections:
            connection.close()


def test_exports_are_packed_one_at_a_time(trained, serving, monkeypatch):
    from app.api.native import archives

    packing = Overlap(archives.export, seconds=0.2)
    monkeypatch.setattr(archives, "export", packing)
    client = serving(trained.root)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.get(EXPORT), range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert packing.most == 1


def test_failed_export_leaves_no_file_and_releases_its_place(trained, serving, temporary: Path):
    client = serving(trained.root)
    assert client.get(EXPORT, params={"step": "7777"}).status_code == 404
    run = trained.get("gru")
    run.checkpoint_path(60).write_bytes(b"torn")
    assert client.get(EXPORT).status_code >= 400
    assert list(temporary.iterdir()) == []
    assert client.app.state.services.downloads.taken == 0


def test_export_with_its_checkpoint_replaced_uses_the_new_one(trained, serving, monkeypatch):
    from app.intake import archive

    run = trained.get("gru")
    latest, load, gone = run.latest(), archive.load, []

    def replaced(path: Path) -> object:
        if not gone:
            gone.append(path)
            target = run.checkpoint_path(61)
            path.rename(target)
            newest = latest.newest.model_copy(update={"file": target.name, "step": 61})
            run.write_latest(latest.model_copy(update={"newest": newest}))
        return load(path)

    monkeypatch.setattr(archive, "load", replaced)
    answer = serving(trained.root).get(EXPORT)
    assert (answer.status_code, len(gone)) == (200, 1)
    assert "gru-61.zip" in answer.headers["content-disposition"]


@pytest.mark.slow
@pytest.mark.parametrize("path", [EXPORT, "/report?model=gru", "/samples?model=gru"])
def test_head_request_leaves_no_file_and_releases_its_place(trained, serving, temporary: Path, path):
    client = serving(trained.root)
    assert client.head(path).status_code == 200
    services = client.app.state.services
    wait_until(lambda: services.downloads.taken == services.answers.taken == 0, "the places are free again")
    assert list(temporary.iterdir()) == []
