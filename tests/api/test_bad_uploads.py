"""Malformed uploads to every route for runs: a reason each time, and nothing is left behind."""

import contextlib
import io
import json
import os
import random
import shutil
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.store.records import RunSpec
from app.store.temporaries import TEMPORARY_PREFIX
from tests.support.runs import LONGEST_WAIT, small_text, wait_until
from tests.support.servers import application, server_process
from tests.support.sockets import descriptors, rest

LARGEST = 2_000_000
TEXT = small_text(6000).encode()
FORM, ZIP, PLAIN, JSON = (
    "multipart/form-data; boundary=x",
    "application/zip",
    "text/plain",
    "application/json",
)
QUICK = settings(max_examples=100, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
REFUSED = (400, 404, 409, 413, 415, 422)


@pytest.fixture(scope="module")
def server(trained_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    root = tmp_path_factory.mktemp("uploads") / "checkpoints"
    shutil.copytree(trained_root, root)
    limits = {"max_corpus_bytes": LARGEST, "read_seconds": 0.5, "access_log": False, "max_runs": 10_000}
    with server_process(root, **limits) as client:
        client.root = root
        client.exported = client.get("/runs/classic/export").content
        yield client


@pytest.fixture(autouse=True)
def nothing_is_left(server: httpx.Client) -> Iterator[None]:
    before = set(os.listdir(server.root))
    yield
    wait_until(lambda: not temporaries(server), "incomplete uploads are removed")
    for name in set(os.listdir(server.root)) - before:
        if not name.startswith("."):
            RunSpec.read(server.root / name / "run.json")  # every new run is complete


def temporaries(server: httpx.Client) -> list[str]:
    return [name for name in os.listdir(server.root) if name.startswith(TEMPORARY_PREFIX)]


def send(server: httpx.Client, path: str, body: bytes, kind: str) -> httpx.Response:
    answer = server.post(path, content=body, headers={"content-type": kind})
    assert answer.status_code < 500, (path, answer.text)
    assert "Traceback" not in answer.text
    if answer.status_code >= 400:
        assert answer.json()["error"]["message"]
    return answer


def part(head: bytes, content: bytes = b"a") -> bytes:
    return b"--x\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


NAMED = b'Content-Disposition: form-data; name="file"; filename="a.txt"'
FIELD = b'Content-Disposition: form-data; name="steps"'
END = b"--x--\r\n"
FORMS = {
    "nothing": b"",
    "no boundary in it": TEXT,
    "another boundary": part(NAMED, TEXT).replace(b"--x", b"--y"),
    "no end": part(NAMED, TEXT),
    "half a boundary": part(NAMED, TEXT) + b"--",
    "no disposition": part(b"Content-Type: text/plain", TEXT) + END,
    "no name": part(b"Content-Disposition: form-data", TEXT) + END,
    "half a head": b"--x\r\nContent-Disposition: form-da",
    "no line after the head": b"--x\r\n" + NAMED + TEXT + END,
    "a head without end": b"--x\r\n" + b"a" * 300_000,
    "heads without end": b"--x\r\n" + b"a: b\r\n" * 50_000,
    "controls in the head": part(NAMED.replace(b"a.txt", bytes(range(1, 32))), TEXT) + END,
    "too many parts": part(FIELD) * 2000 + END,
    "too many files": part(NAMED) * 2000 + END,
    "a long field": part(FIELD, b"1" * 1_500_000) + END,
    "a field that is no text": part(FIELD, b"\xff\xfe\0") + part(NAMED, TEXT) + END,
    "a charset that is none": part(FIELD + b"\r\nContent-Type: text/plain; charset=none") + END,
    "only an end": END,
    "an end first": END + part(NAMED, TEXT),
    "a form in a form": part(b"Content-Type: multipart/mixed; boundary=x", part(NAMED, TEXT)) + END,
    "bytes": random.Random(1).randbytes(100_000),
}
PATHS = ["/runs", "/runs/classic/fork", "/runs/import"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", FORMS)
def test_malformed_form_is_refused_or_read(server, path, name):
    answer = send(server, path, FORMS[name], FORM)
    if path != "/runs/classic/fork":  # a fork needs no text
        assert answer.status_code in REFUSED, answer.text


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="' + "b" * 5000 + '"',
        "multipart/form-data; boundary=é",
        "multipart/form-data; boundary=x; boundary=y",
        "text/plain; charset=none",
        "text/plain; charset=" + "u" * 5000,
        "text/plain; charset=idna",
        "text/plain; charset=\0",
        "/",
        ";",
        "",
        "application/json; charset=utf-16",
    ],
)
def test_any_content_type_is_answered_or_refused(server, path, kind):
    for body in (part(NAMED, TEXT) + END, TEXT, b"{}"):
        try:
            send(server, path, body, kind.encode())
        except (httpx.LocalProtocolError, httpx.RemoteProtocolError):
            assert "\0" in kind


def zipped(compression: int = zipfile.ZIP_DEFLATED, **files: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def zips() -> dict[str, bytes]:
    whole = zipped(**{"a.txt": TEXT})
    entry = whole.index(b"PK\x01\x02")
    locked = bytearray(whole)
    locked[6] |= 1
    locked[entry + 8] |= 1
    unknown = bytearray(whole)
    unknown[8:10] = unknown[entry + 10 : entry + 12] = b"\x63\0"
    return {
        "cut": whole[: len(whole) // 2],
        "without its list": whole[:entry],
        "only its list": whole[entry:],
        "locked": bytes(locked),
        "packed in an unknown way": bytes(unknown),
        "empty": zipped(),
        "a mark only": b"PK\x03\x04",
        "a bomb": zipped(**{"a.txt": bytes(100_000_000)}),
        "bombs": zipped(**{f"{number}.txt": bytes(1_000_000) for number in range(50)}),
        "too many files": zipped(zipfile.ZIP_STORED, **{f"{number}": b"" for number in range(11_000)}),
        "a zip in a zip": zipped(**{"a.zip": whole, "b.zip": zipped(**{"c.zip": whole})}),
        "bzip2": zipped(zipfile.ZIP_BZIP2, **{"model.safetensors": b"a" * 3_000_000, "run.json": b"{}"}),
    }


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", zips())
def test_malformed_zip_is_refused_with_the_reason(server, path, name):
    assert send(server, path, zips()[name], ZIP).status_code in REFUSED


@pytest.mark.slow
def test_file_name_in_a_zip_or_form_is_never_used_as_a_path(server):
    secret = server.root.parent / "written"
    names = ["../written", str(secret), "a/../../written", "..\\written", "run.json/../../written"]
    archive = zipped(zipfile.ZIP_STORED, **dict.fromkeys(names, TEXT))
    assert send(server, "/runs?preset=classic", archive, ZIP).status_code == 202
    content = dict.fromkeys(names, TEXT)
    with zipfile.ZipFile(io.BytesIO(server.exported)) as exported:
        content |= {name: exported.read(name) for name in exported.namelist()}
    assert send(server, "/runs/import?name=came", zipped(**content), ZIP).status_code == 201
    for name in names:
        form = part(NAMED.replace(b"a.txt", name.encode()), TEXT) + END
        answer = send(server, "/runs?preset=classic", form, FORM)
        assert answer.status_code == 202
        assert (server.root / answer.json()["name"] / "corpus.txt").is_file()
    assert not secret.exists()


@pytest.mark.slow
@QUICK
@given(seed=st.integers(0, 1 << 30), changes=st.integers(1, 20), cut=st.booleans())
def test_damaged_export_is_never_imported_as_another_model(server, seed, changes, cut):
    rng = random.Random(seed)
    data = bytearray(server.exported)
    for _ in range(changes):
        data[rng.randrange(len(data))] = rng.randrange(256)
    if cut:
        del data[rng.randrange(len(data)) :]
    answer = send(server, f"/runs/import?name=i-{seed}", bytes(data), ZIP)
    if answer.status_code == 201:  # the damage hit no weights, but the card or the curve
        try:
            assert answer.json()["newest"]["digest"] == server.get("/runs/classic").json()["newest"]["digest"]
        finally:
            assert server.delete(f"/runs/i-{seed}").status_code == 200


def test_export_with_weights_of_another_run_is_refused(server):
    other = zipfile.ZipFile(io.BytesIO(server.get("/runs/gru/export").content))
    with zipfile.ZipFile(io.BytesIO(server.exported)) as exported:
        content = {name: exported.read(name) for name in exported.namelist()}
    answer = send(
        server, "/runs/import?name=mixed", zipped(**content | {"run.json": other.read("run.json")}), ZIP
    )
    assert answer.status_code == 422
    assert "its weights belong to another network" in answer.text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
OPTIONS = ["text", "name", "encoding", "licence", "priority", "preset", "steps", "minutes", "hidden", "step"]


@pytest.mark.slow
@QUICK
@given(body=st.dictionaries(st.sampled_from(OPTIONS) | st.text(max_size=5), VALUES, max_size=4) | VALUES)
def test_any_json_body_is_answered_or_refused(server, body):
    """Uses texts that are too short to train on, so that nothing is queued."""
    if isinstance(body, dict) and isinstance(body.get("text"), str):
        body["text"] = body["text"][:20]
    data = json.dumps(body).encode()
    for path in PATHS:
        answer = send(server, path, data, JSON)
        assert answer.status_code in (*REFUSED, 202)
    send(server, "/runs/import", data, JSON)
    changed = server.patch("/runs/classic", content=data, headers={"content-type": JSON})
    assert changed.status_code in (200, *REFUSED), changed.text


@pytest.mark.slow
@QUICK
@given(
    cursor=st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60)
)
def test_any_event_cursor_is_accepted(server, cursor):
    for sent in (cursor, f"{cursor}.1.1", "999999999999.999999999.999999999999", "-1.0.-1"):
        headers = {"last-event-id": sent.strip(" \t\xa0\x85").encode("latin-1")}
        answer = server.get("/runs/classic/events", headers=headers)
        assert answer.status_code in (200, 204), answer.text


def connected(server: httpx.Client) -> socket.socket:
    return socket.create_connection((server.base_url.host, server.base_url.port), timeout=LONGEST_WAIT)


def head(path: str, kind: str, more: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n".encode() + more + b"\r\n\r\n"


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", [PLAIN, FORM, ZIP, JSON])
def test_stalled_upload_is_closed(server, path, kind):
    before = descriptors(server)
    body = part(NAMED, TEXT) if kind == FORM else TEXT
    for length in (b"Content-Length: 1000000", b"Transfer-Encoding: chunked"):
        with connected(server) as connection:
            piece = body if b"Length" in length else b"%x\r\n%b\r\n" % (len(body), body)
            connection.sendall(head(path, kind, length) + piece)
            assert rest(connection).startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 4"))
    wait_until(lambda: descriptors(server) <= before + 1, "its files are closed")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", [PLAIN, FORM, ZIP, JSON])
def test_upload_of_a_disconnected_client_leaves_nothing(server, path, kind):
    before, runs = descriptors(server), len(server.get("/runs").json()["runs"])
    for size in (0, 10, 5000):
        with connected(server) as connection:
            connection.sendall(head(path, kind, b"Content-Length: 1000000") + TEXT[:size])
    wait_until(lambda: descriptors(server) <= before + 1, "its files are closed")
    assert len(server.get("/runs").json()["runs"]) == runs


@pytest.mark.slow
@pytest.mark.parametrize("kind", [PLAIN, FORM, ZIP, JSON])
def test_client_disconnect_is_not_logged_as_an_error(trained, kind, caplog):
    with application(trained.root) as client:
        with connected(client) as connection:
            begin = part(NAMED, TEXT) if kind == FORM else TEXT
            connection.sendall(head("/runs", kind, b"Content-Length: 1000000") + begin)
            wait_until(lambda: client.app.state.services.uploads.taken > 0, "the upload has begun")
        wait_until(lambda: client.app.state.services.uploads.taken == 0, "it has ended")
    assert not [record for record in caplog.records if record.exc_info]


def test_wrong_content_length_causes_no_server_error(server):
    for length in (
        b"5",
        b"-1",
        b"+7",
        b"1e3",
        b"0x10",
        b"9" * 30,
        b"6000, 6000",
        b"6000\r\nContent-Length: 7",
    ):
        with connected(server) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(head("/runs?preset=classic", PLAIN, b"Content-Length: " + length) + TEXT)
            answers = rest(connection)
            assert b"HTTP/1.1 5" not in answers
            assert b"HTTP/1.1 202" not in answers, "a text other than the one sent was queued"
    both = b"Content-Length: 6000\r\nTransfer-Encoding: chunked"
    with connected(server) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(head("/runs?preset=classic", PLAIN, both) + TEXT)
        assert b"HTTP/1.1 202" not in rest(connection)
