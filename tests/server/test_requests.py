"""Less common requests: HEAD, compressed bodies, other encodings, very large numbers."""

import gzip
import json
import logging
import re
import socket

import httpx
import pytest

from app.logs import configure_logging, without_controls
from app.server.process import AddressError, listen
from app.settings import Settings
from app.streams import visible
from tests.support.runs import small_text, wait_until

# values of path parameters for which every GET route has an answer
VALUES = {"name": "gru", "file_id": "file-1", "job_id": "gru", "model": "gru", "fine_tuning_job_id": "gru"}


@pytest.mark.slow
def test_head_answers_as_get_without_the_body(client: httpx.Client):
    paths = [path for path, methods in client.app.openapi()["paths"].items() if "get" in methods]
    assert len(paths) > 20
    assets = re.findall(r'(?:href|src)="(/assets/[^"]+)"', client.get("/").text)
    assert assets
    for path in (*paths, *assets, "/", "/docs", "/favicon.ico", "/openapi.json", "/nothing", "/assets/none"):
        address = path.format_map(VALUES)
        if address == "/generate":
            continue
        head = client.head(address)
        with client.stream("GET", address) as get:
            assert head.status_code == get.status_code, address
            for name in ("content-type", "etag", "content-length"):
                # neither is known without the check
                differing = address.startswith("/gradcheck") and name != "content-type"
                differing |= name == "content-length" and address == "/metrics"
                assert differing or head.headers.get(name) == get.headers.get(name), (address, name)
        assert head.content == b""


def test_head_generates_no_text(client: httpx.Client):
    written = client.get("/metrics").text.partition("\ncharloom_generation_tokens_total ")[2].split()[0]
    assert client.head("/generate", params={"length": 50}).status_code == 200
    assert f"charloom_generation_tokens_total {written}\n" in client.get("/metrics").text


def test_head_of_a_stream_takes_no_place(serving, trained_root):
    client = serving(trained_root, max_streams=1)
    for _ in range(3):
        assert client.head("/runs/gru/events").status_code == 200


@pytest.mark.parametrize("path", ["/generate", "/v1/completions", "/runs?name=mine"])
def test_compressed_body_is_refused_with_the_reason(client: httpx.Client, path: str):
    body = gzip.compress(json.dumps({"length": 5}).encode())
    answer = client.post(path, content=body, headers={"content-encoding": "gzip"})
    assert answer.status_code == 415
    assert "without Content-Encoding. Given: gzip" in answer.text


def test_json_that_is_not_utf8_is_refused_with_the_position(client: httpx.Client):
    answer = client.post(
        "/generate", content=b'{"prompt": "caf\xe9"}', headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert "not UTF-8: byte 0xe9 at offset 15" in answer.json()["error"]["message"]


@pytest.mark.parametrize("digits", [310, 400, 4300, 5000])
@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/generate", "length"),
        ("/generate", "temperature"),
        ("/runs", "epochs"),
        ("/runs", "steps"),
        ("/runs", "learning_rate"),
        ("/runs", "minutes"),
        ("/v1/completions", "max_tokens"),
    ],
)
def test_number_of_many_digits_is_refused(client: httpx.Client, path: str, field: str, digits: int):
    base = {
        "/runs": {"text": small_text(), "name": "many"},
        "/v1/completions": {"model": "gru", "prompt": "a"},
    }
    start = json.dumps(base.get(path, {}))[:-1]
    body = start + (", " if path in base else "") + f'"{field}": {"9" * digits}}}'
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text[:200]


def test_watching_a_run_takes_no_place_of_a_text(serving, trained):
    trained.get("gru").write_status(trained.get("gru").status.model_copy(update={"state": "queued"}))
    client = serving(trained.root, max_streams=1)
    with client.stream("GET", "/runs/gru/events") as watching:
        assert watching.status_code == 200
        with client.stream("POST", "/generate", json={"length": 5, "stream": True}) as text:
            assert text.status_code == 200
            text.read()
        with client.stream("GET", "/runs/gru/events") as refused:
            assert refused.status_code == 429
            refused.read()
        assert refused.json()["error"]["code"] == "overloaded"
        assert "clients are watching runs" in refused.json()["error"]["message"]


def test_watching_a_run_ends_in_time_and_releases_its_place(serving, trained, caplog):
    trained.get("gru").write_status(trained.get("gru").status.model_copy(update={"state": "queued"}))
    client = serving(trained.root, max_streams=1, watch_seconds=0.2)
    watchers = client.app.state.services.watchers
    for _ in range(2):
        with client.stream("GET", "/runs/gru/events", timeout=10) as watching:
            assert watching.status_code == 200
            watching.read()  # the answer is complete, so that the client sees no error
        wait_until(lambda: watchers.taken == 0, "the place is released")
    assert "cut off" not in caplog.text


def test_refusal_counters_start_at_zero(serving, trained_root):
    text = serving(trained_root).get("/metrics").text
    for reason in (
        "overloaded",
        "rate_limited",
        "unauthorized",
        "body_too_large",
        "not_ready",
        "shutting_down",
    ):
        assert f'charloom_requests_rejected_total{{reason="{reason}"}} 0.0' in text


def test_runs_are_counted_by_state(serving, trained):
    client = serving(trained.root)
    assert 'charloom_runs{state="finished"} 2.0' in client.get("/metrics").text
    assert client.post("/runs?name=mine", content=small_text()).status_code == 202
    text = client.get("/metrics").text
    assert 'charloom_runs{state="queued"} 1.0' in text
    assert 'charloom_runs{state="training"} 0.0' in text


def test_control_characters_are_escaped_for_terminals_and_logs():
    assert visible("a\x1b[2Jb\u202ec\x9b\td") == "a\\x1b[2Jb\\u202ec\\x9b\td"
    path = "/a\x1b[2J\r\nforged line\x07"
    written = without_controls(None, "info", {"event": "request", "path": path, "status": 404})
    assert written == {"event": "request", "path": "/a\\x1b[2J\\r\\nforged line\\x07", "status": 404}


def test_log_lines_contain_no_control_characters(capfd):
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging(Settings())
        logging.getLogger("app.x").info("file %s", "na\x1b]52;c;me", extra={"path": "/\x1b[2J\n"})
        try:
            raise ValueError("bad \x1b[31mname")
        except ValueError:
            logging.getLogger("app.x").exception("failed")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    written = capfd.readouterr().err
    assert "\x1b" not in written
    assert "na\\x1b]52;c;me" in written
    assert "/\\x1b[2J\\n" in written
    assert "Traceback" in written


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6_address_in_brackets_is_accepted(host: str):
    [listener] = listen(host, 0)
    with listener:
        assert listener.getsockname()[0] == "::1"


def test_unspecified_ipv6_address_listens_on_ipv4_and_ipv6():
    [listener] = listen("::", 0)
    with listener:
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, listener.getsockname()[1])).close()


def test_invalid_address_is_refused():
    with pytest.raises(AddressError):
        listen("no such host", 0)


def test_head_without_a_key_is_refused_as_get_is(serving, trained_root):
    client = serving(trained_root, api_keys="ann:s3cret")
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/runs", 401), ("/", 401)):
        head, get = client.head(path), client.get(path)
        assert (head.status_code, get.status_code, head.content) == (status, status, b"")
        assert head.headers.get("www-authenticate") == get.headers.get("www-authenticate")
    assert client.head("/runs", headers={"authorization": "Bearer s3cret"}).status_code == 200


@pytest.mark.parametrize("host", ["[::]", "0::0"])
def test_unspecified_address_in_another_form_listens_on_both(host: str):
    [listener] = listen(host, 0)
    with listener:
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, listener.getsockname()[1])).close()


def test_name_with_only_an_ipv6_address_is_listened_to(monkeypatch):
    found, resolve = [], socket.getaddrinfo

    def only_ipv6(host: str, *arguments: object, **options: object) -> list:
        found.append(host)
        return resolve("::1" if host == "six.example" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", only_ipv6)
    monkeypatch.setattr(socket, "create_server", lambda address, family, **_: (address, family))
    assert listen("six.example", 0) == [(("six.example", 0), socket.AF_INET6)]
    assert listen("127.0.0.1", 0) == [(("127.0.0.1", 0), socket.AF_INET)]


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip", "nonsense"])
def test_every_content_coding_is_refused_in_the_shape_of_the_route(client: httpx.Client, coding: str):
    body = gzip.compress(json.dumps({"inputs": "a", "length": 5}).encode() * 2000)
    for path, message in (
        ("/generate", lambda answer: answer["error"]["message"]),
        ("/v1/completions", lambda answer: answer["error"]["message"]),
        ("/", lambda answer: answer["error"]),
    ):
        answer = client.post(path, content=body, headers={"content-encoding": coding})
        assert answer.status_code == 415
        assert f"without Content-Encoding. Given: {coding}" in message(answer.json())
        assert client.get("/healthz").status_code == 200  # on the same connection
    plain = client.post("/generate", json={"length": 5}, headers={"content-encoding": "identity"})
    assert plain.status_code == 200


def test_head_of_a_gradient_check_computes_nothing(serving, trained_root, monkeypatch):
    client = serving(trained_root)
    monkeypatch.setattr(client.app.state.services.gradchecks, "report", None)
    for path in ("/gradcheck", "/gradcheck?model=gru", "/gradcheck.svg", "/gradcheck.png?cell=lstm"):
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert "content-length" not in head.headers
    assert client.head("/gradcheck?model=none").status_code == 404
    assert client.head("/gradcheck.svg?model=gru&cell=lstm").status_code == 422
