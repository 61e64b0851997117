"""Malformed input: a reason each time, no traceback, and no memory that stays allocated."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h11
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.servers import server_process
from tests.support.sockets import connected, memory, rest

ANY_TEXT = st.text(st.characters(), max_size=200)  # all of Unicode, with surrogates and control characters
MIXED = st.one_of(
    ANY_TEXT, st.text("the cat\n", max_size=200), st.text(st.characters(categories=["Cc", "Cs"]))
)
LIMIT = 1_000_000
QUICK = settings(max_examples=150, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server(trained_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with server_process(trained_root, access_log=False, max_length=300, default_length=5) as client:
        yield client


@pytest.fixture(scope="module")
def posted(server: httpx.Client) -> list[str]:
    """The paths of all POST operations without path parameters."""
    paths = server.get("/openapi.json").json()["paths"]
    found = [path for path, operations in paths.items() if "post" in operations and "{" not in path]
    assert {"/generate", "/score", "/v1/completions"} <= set(found)
    return found


def check(answer: httpx.Response) -> None:
    """Check that the answer is a result or a reason, not a server error, and reveals no internals."""
    assert answer.status_code in (200, 400, 404, 405, 406, 413, 415, 422), answer.text
    assert "Traceback" not in answer.text
    assert 'File "' not in answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]


@pytest.mark.slow
@QUICK
@given(prompt=MIXED, stop=MIXED, model=MIXED)
def test_any_text_in_any_field_is_answered_or_refused(server, prompt, stop, model):
    for body in ({"prompt": prompt}, {"stop": stop}, {"model": model}, {prompt: stop}):
        check(server.post("/generate", content=json.dumps(body), headers=JSON))


NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from(
        ["1e400", "-1e400", "1" * 5000, "-0", "1E+2", "NaN", "Infinity", "0x10", "01", "1.", ".5"]
    ),
)


@QUICK
@given(field=st.sampled_from(["length", "seed", "temperature", "top_k", "top_p", "n"]), number=NUMBERS)
def test_any_number_in_any_field_is_answered_or_refused(server, field, number):
    check(server.post("/generate", content=f'{{"{field}": {number}}}', headers=JSON))


@pytest.mark.slow
@QUICK
@given(body=st.binary(max_size=300))
def test_any_bytes_as_a_body_are_answered_or_refused(server, posted, body):
    for path in posted:
        answer = server.post(path, content=body, headers=JSON)
        assert answer.status_code < 500, (path, answer.text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(ANY_TEXT, inner, max_size=5),
    max_leaves=20,
)


@pytest.mark.slow
@QUICK
@given(value=VALUES)
def test_any_json_as_body_or_field_is_answered_or_refused(server, value):
    check(server.post("/generate", content=json.dumps(value), headers=JSON))
    check(server.post("/generate", content=json.dumps({"prompt": value, "stop": value}), headers=JSON))


@pytest.mark.slow
@QUICK
@given(
    headers=st.lists(
        st.tuples(
            st.from_regex(re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}"), fullmatch=True)
            | st.sampled_from(["accept", "content-type", "content-length", "x-request-id", "authorization"]),
            st.binary(max_size=100).map(lambda raw: raw.translate(None, b"\r\n\0").strip()),
        ),
        max_size=5,
    )
)
def test_any_header_is_answered_or_refused(server, headers):
    """An answer, or a closed connection if the head is not valid HTTP; the server keeps running."""
    sent = [(name.encode(), value) for name, value in headers]
    try:
        with httpx.Client(base_url=server.base_url, timeout=10) as client:
            answer = client.post("/generate", content=b'{"length": 3}', headers=sent)
    except (httpx.TransportError, h11.LocalProtocolError):  # for example, a wrong length of the body
        pass
    else:
        assert answer.status_code < 500, answer.text
    assert server.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        '{"prompt":' * 50_000,
        "[" * 500_000,
        '{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"length": 5, "length": 6, "length": 7}',
        '{"a":1,' * 100_000,
        '{"prompt": "' + "\\ud800" * 100_000 + '"}',
        '{"prompt": "' + "the " * 240_000 + '"}',
        '{"seed": ' + "9" * 900_000 + "}",
        '{"stop": [' + '"a",' * 200_000 + '"a"]}',
        "\ufeff{}",
        "\0" * 900_000,
    ],
    ids=lambda body: body[:12],
)
def test_large_and_deep_bodies_leave_no_memory_behind(server, body):
    check(server.post("/generate", content=body.encode(), headers=JSON))  # buffers are allocated now
    before = memory(server)
    for _ in range(8):
        check(server.post("/generate", content=body.encode(), headers=JSON))
    assert memory(server) < before + (64 << 20)


PATHS = st.lists(
    st.sampled_from(["..", ".", "%2e%2e", "%00", "runs", "gru", "etc", "passwd", "%ff", "é", "~"])
)


@pytest.mark.slow
@QUICK
@given(parts=PATHS, query=ANY_TEXT)
def test_any_path_and_query_are_answered_or_refused(server, parts, query):
    encoded = query.encode("utf-8", "surrogatepass")
    for path in ("/" + "/".join(parts), "/loss-curve", "/samples", "/runs"):
        answer = server.get(path, params={"model": encoded, "prompt": encoded})
        assert answer.status_code < 500, answer.text
        assert "root:" not in answer.text


def test_no_path_returns_a_file_of_the_server(server, trained_root):
    secret = trained_root.parent / "secret.txt"
    secret.write_text("a secret")
    for path in ("/assets/../../secret.txt", "/assets/%2e%2e/%2e%2e/secret.txt", f"{secret}", f"/{secret}"):
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        with connected(server) as connection:  # httpx would normalise the path
            connection.sendall(head.encode())
            answer = rest(connection)
        assert answer.startswith(b"HTTP/1.1 4"), path
        assert b"a secret" not in answer
    for name in ("../secret.txt", "..%2fsecret.txt", str(secret), f"gru/../../{secret.name}"):
        for method, target in (("GET", "/loss-curve"), ("GET", "/samples"), ("POST", "/generate")):
            given: dict[str, Any] = (
                {"json": {"model": name}} if method == "POST" else {"params": {"model": name}}
            )
            answer = server.request(method, target, **given)
            assert answer.status_code in (404, 422), answer.text
    os.unlink(secret)
