"""Uploads of all kinds of files: HTTP gives the verdict of the reader, and never a server error."""

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.errors import UnusableTextError
from app.intake.text import read_text
from app.store.run_store import RunStore
from tests.support.runs import small_text


@pytest.fixture
def api(tmp_path: Path, serving: Callable[..., httpx.Client]) -> httpx.Client:
    store = RunStore(tmp_path / "store")
    store.root.mkdir()
    return serving(store.root)


def zipped(name: str, content: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(name, content)
    return data.getvalue()


TEXT = small_text().encode()
FILES = {
    "dos.txt": b"the cat sat\r\n" * 200 + b"\x1a",
    "one-character.txt": b"a" * 3000,
    "next-line.txt": "a line\u0085".encode() * 300,
    "windows.txt": ("It’s a “test”.\r\n" * 200).encode("cp1252"),
    "escapes.txt": b"\x1b[1mbold\x1b[0m text\n" * 200,
    "zeros.txt": TEXT + b"\0",
    "empty.txt": b"",
    "utf16.txt": "a text without a mark\n".encode("utf-16-le") * 200,
    "picture.png": b"\x89PNG\r\n\x1a\n" + random.Random(1).randbytes(2000),
    "page.html": b"<html><body><p>" + TEXT + b"</p></body></html>",
    "lines.jsonl": b'{"prompt": "the cat ", "completion": "sat on a mat"}\n' * 200,
    "other.jsonl": b'{"rows": 1}\n' * 200,
    "table.csv": b"1,2,3,4\n" * 500,
    "wrong-checksum.zip": zipped("a.txt", TEXT).replace(b"the cat", b"the dog", 1),
    "name.zip": zipped("é.txt", TEXT).replace("é".encode(), b"\xff\xff"),
}


def judged(path: Path) -> tuple[int, list[str]]:
    """The status and findings over HTTP that correspond to the verdict of the reader."""
    try:
        return 200, [finding.code for finding in read_text(path).findings]
    except UnusableTextError as error:
        return 422, [finding["code"] for finding in error.findings]


@pytest.mark.parametrize("name", FILES)
def test_upload_has_the_verdict_and_findings_of_the_reader(api, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    answer = api.post("/runs/check", files={"file": (name, FILES[name])})
    body = answer.json()
    findings = body["findings"] if answer.is_success else body["error"]["details"]
    assert (answer.status_code, [finding["code"] for finding in findings]) == judged(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-7", "idna", "punycode", "hz", "cp037"])
def test_any_encoding_name_causes_no_server_error(api, encoding):
    for data in (b"h\0e\0l\0l\0o\0" * 400, b"xn--\xff" * 400, b"~{+2AA-" * 400, TEXT):
        answer = api.post("/runs/check", content=data, params={"encoding": encoding})
        assert answer.status_code in (200, 422), answer.text


PATHS = [
    "/",
    "/generate",
    "/score",
    "/runs",
    "/runs/gru/fork",
    "/v1/chat/completions",
    "/v1/fine_tuning/jobs",
]


@pytest.mark.parametrize("path", PATHS)
def test_json_that_is_not_utf8_is_refused_with_its_position(client: httpx.Client, path: str):
    body = '{"text": "café"}'.encode("latin-1")
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == (422 if path == "/" else 400)  # as Text Generation Inference does
    assert "the body is not UTF-8: byte 0xe9 at offset 13" in answer.text


def test_text_given_twice_in_a_form_is_refused(client: httpx.Client):
    answer = client.post("/runs/check", data={"text": ["a b", "c d"]})
    assert answer.json()["error"]["message"].startswith("text must be given once")
