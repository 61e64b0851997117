"""API keys, rights, rate limits and CORS."""

import asyncio
import hmac
import io
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.errors import ForbiddenError
from app.server.auth import OPEN, ApiKeys, Right, demand, key_of, read_keys, read_limits
from app.settings import Settings
from model.errors import ConfigError
from tests.support.runs import wait_until

KEYS = "ann:s3cret,bob:hunter2:admin"
ANN, BOB = {"authorization": "Bearer s3cret"}, {"authorization": "Bearer hunter2"}


@pytest.fixture
def guarded(serving: Callable[..., httpx.Client], trained_root: Path) -> httpx.Client:
    return serving(trained_root, api_keys=KEYS, access_log=True)


def test_keys_have_names_and_rights():
    ann, bob = read_keys(KEYS)
    assert (ann.name, ann.right, bob.right) == ("ann", Right.READ, Right.ADMIN)
    assert "s3cret" not in repr(ann)
    assert read_keys(" ") == []
    demand({"charloom.key": bob}, Right.TRAIN)
    demand({}, Right.ADMIN)
    with pytest.raises(ForbiddenError, match="the right train; 'ann' has read"):
        demand({"charloom.key": ann}, Right.TRAIN)


@pytest.mark.parametrize(
    "keys",
    [
        "s3cret",
        "ann:",
        ":s3cret",
        "ann:s3cret,ann:other",
        "ann:s3cret:owner",
        "ann:s3cret:read+train",
        "ann:s3cret:read+",
        "ann:s3cret:texts+texts",
    ],
)
def test_invalid_keys_stop_the_start_without_being_shown(keys):
    with pytest.raises(ConfigError) as refused:
        read_keys(keys)
    assert "a right of read, train, admin, to which +texts may be added; check entry" in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("keys", [",", " , ,", ";,"])
def test_empty_list_of_keys_does_not_open_the_server(keys):
    with pytest.raises(ConfigError):
        read_keys(keys)


@pytest.mark.parametrize(
    ("right", "texts"),
    [("read", False), ("train", False), ("admin", True), ("texts", True), ("train+texts", True)],
)
def test_whole_text_needs_a_separate_right(serving, trained_root, right, texts):
    client = serving(trained_root, api_keys=f"ann:s3cret:{right},root:hunter2:admin")
    path = "/runs/gru/export"
    assert client.get(path, headers=ANN).status_code == 200
    answer = client.get(path, params={"text": True}, headers=ANN)
    assert answer.status_code == (200 if texts else 403)
    assert texts or "the right texts; 'ann' has" in answer.json()["error"]["message"]
    uploaded = client.get(f"/v1/files/file-{'0' * 24}/content", headers=ANN)
    assert uploaded.status_code == (404 if texts else 403)


@pytest.mark.slow
def test_only_requests_with_a_wrong_key_are_delayed(guarded, monkeypatch):
    monkeypatch.setattr("app.server.auth.WRONG_KEY_SECONDS", 2.0)
    with ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        wrong = [pool.submit(guarded.get, "/runs", headers={"authorization": "Bearer x"}) for _ in range(8)]
        assert guarded.get("/runs", headers=ANN).status_code == 200
        assert time.monotonic() - began < 2.0, "a request with a correct key was delayed"
        assert {one.result().status_code for one in wrong} == {401}
        assert time.monotonic() - began >= 2.0


def test_page_that_asks_for_a_key_loads_its_styles(guarded):
    answer = guarded.get("/", headers={"accept": "text/html"})
    assert answer.status_code == 401
    assert "Try again, and give the key as the password" in answer.text
    loaded = re.findall(r'"(/assets/[^"]+)"', answer.text)
    assert any(path.endswith("charloom.css") for path in loaded)
    assert {guarded.get(path).status_code for path in loaded} == {200}


def test_every_route_but_health_needs_a_key(guarded):
    paths = guarded.app.openapi()["paths"]
    pages = {"/": {"get"}, "/docs": {"get"}, "/openapi.json": {"get"}, "/nothing": {"get"}}
    for path, methods in (paths | pages).items():
        for method in methods:
            answer = guarded.request(method, path)
            assert answer.status_code == (200 if path in OPEN else 401), path
    assert guarded.get("/runs/../healthz/../metrics").status_code == 401


@pytest.mark.slow
@pytest.mark.parametrize("given", [{}, {"authorization": "Bearer s3cre"}, {"authorization": "Basic ???"}])
def test_unknown_key_is_401_in_the_error_format_of_the_route(guarded, given):
    native = guarded.post("/generate", json={}, headers=given)
    openai = guarded.post("/v1/completions", json={}, headers=given)
    tgi = guarded.post("/", json={"inputs": ""}, headers=given)
    assert {native.status_code, openai.status_code, tgi.status_code} == {401}
    assert native.json()["error"]["code"] == "unauthorized"
    assert openai.json()["error"]["code"] == "invalid_api_key"
    assert isinstance(tgi.json()["error"], str)
    assert native.headers["www-authenticate"] == "Bearer"


def test_known_key_is_accepted_as_bearer_and_basic(guarded):
    assert guarded.post("/generate", json={"length": 5}, headers=ANN).status_code == 200
    assert guarded.get("/", headers={"accept": "text/html"}, auth=("anybody", "hunter2")).status_code == 200
    asked = guarded.get("/", headers={"accept": "text/html"})
    assert asked.headers["www-authenticate"].startswith("Basic")


@pytest.mark.slow
def test_key_with_any_character_is_accepted(serving, trained_root):
    client = serving(trained_root, api_keys="ann:clé")
    assert client.get("/runs", headers={"authorization": "Bearer clé".encode()}).status_code == 200
    assert client.get("/runs", headers={"authorization": "Bearer cl"}).status_code == 401


@pytest.mark.slow
def test_secrets_are_in_no_answer_or_log(guarded):
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    logging.getLogger("app.requests").setLevel(logging.DEBUG)
    try:
        answers = [
            guarded.post("/generate", json={"length": 5}, headers=BOB),
            guarded.post("/generate", json={"length": 0}, headers=BOB),
            guarded.get("/metrics", headers=BOB),
            guarded.get("/metrics", headers={"authorization": "Bearer wr0ng"}),
        ]
    finally:
        logging.getLogger().removeHandler(handler)
        logging.getLogger("app.requests").setLevel(logging.NOTSET)
    text = log.getvalue() + repr(Settings(api_keys=KEYS)) + "".join(answer.text for answer in answers)
    assert "request" in log.getvalue()
    for secret in ("s3cret", "hunter2", "wr0ng"):
        assert secret not in text


def test_rate_limit_is_per_client_and_gives_a_retry_time(serving, trained_root):
    client = serving(trained_root, api_keys=KEYS, rate_limit="3/hour")
    for _ in range(3):
        assert client.post("/generate", json={"length": 1}, headers=ANN).status_code == 200
    refused = client.post("/generate", json={"length": 1}, headers=ANN)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 3600
    assert int(refused.headers["retry-after-ms"]) <= 3600_000
    openai = client.post("/v1/completions", json={"prompt": "a"}, headers=ANN).json()["error"]
    assert (openai["type"], openai["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert client.post("/generate", json={"length": 1}, headers=BOB).status_code == 200
    assert client.get("/loss-curve", headers=ANN).status_code == 200
    assert 'requests_rejected_total{reason="rate_limited"} 2.0' in client.get("/metrics", headers=ANN).text


def test_rate_limit_counts_texts_instead_of_requests(serving, trained_root):
    client = serving(trained_root, rate_limit="20/hour")

    def status(path: str, **body: object) -> int:
        return client.post(path, json=body).status_code

    assert status("/generate", length=1, n=12) == 200
    assert status("/generate", length=1, n=12) == 429
    assert status("/generate", length=1, n=2) == 200
    assert status("/v1/completions", model="gru", prompt="a", max_tokens=1, n=2) == 200
    assert status("/score", text="a cat", models=["gru", "classic", "gru@20", "classic@20"]) == 429
    assert status("/v1/completions", model="gru", prompt="a", max_tokens=1, n=3, stream=True) == 429


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "/gradcheck?model=classic@0",
        "/gradcheck.svg?model=classic@0",
        "/runs/gru/export",
        "/report?model=classic",
        "/generate?length=1",
    ],
)
def test_expensive_reads_are_rate_limited(serving, trained_root, path):
    client = serving(trained_root, rate_limit="2/hour")
    assert [client.get(path).status_code for _ in range(3)] == [200, 200, 429]
    assert client.get("/runs").status_code == 200


def test_invalid_rate_limit_stops_the_start():
    with pytest.raises(ConfigError, match="60/minute"):
        read_limits("often")


def test_cors_is_off_unless_configured(client, serving, trained_root):
    origin = {"origin": "https://pages.example"}
    assert "access-control-allow-origin" not in client.get("/healthz", headers=origin).headers
    open_ = serving(trained_root, cors_origins="https://pages.example", api_keys=KEYS)
    preflight = origin | {"access-control-request-method": "POST"}
    allowed = open_.options("/generate", headers=preflight)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, origin["origin"])
    other = {"origin": "https://other.example"}
    assert "access-control-allow-origin" not in open_.get("/healthz", headers=other).headers
    refused = open_.post("/generate", json={}, headers=origin)
    assert refused.status_code == 401
    assert "access-control-allow-origin" in refused.headers


def logged(client: httpx.Client, paths: Iterable[str]) -> str:
    """The lines of the access log for a GET of each path."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter("%(message)s %(path)s", defaults={"path": ""}))
    requests = logging.getLogger("app.requests")
    requests.addHandler(handler)
    requests.setLevel(logging.DEBUG)
    try:
        for path in paths:
            client.get(path)
    finally:
        requests.removeHandler(handler)
        requests.setLevel(logging.NOTSET)
    return log.getvalue()


def test_health_checks_and_scrapes_are_not_in_the_access_log(serving, trained_root):
    client = serving(trained_root, access_log=True)
    assert logged(client, ["/healthz", "/readyz", "/metrics"]) == ""
    assert logged(client, ["/healthz", "/runs"]) == "request /runs\n"
    assert logged(serving(trained_root, access_log=False), ["/runs"]) == ""


def test_access_log_has_the_client_address(serving, trained_root, caplog):
    caplog.set_level("DEBUG", "app.requests")
    forwarded = {"x-forwarded-for": "192.0.2.7"}

    def clients() -> list[str]:
        return [record.client for record in caplog.records if record.name == "app.requests"]

    serving(trained_root, access_log=True).get("/runs", headers=forwarded)
    wait_until(lambda: clients() == ["127.0.0.1"], "the line is written")
    serving(trained_root, access_log=True, trusted_proxies="192.0.2.1").get("/runs", headers=forwarded)
    wait_until(lambda: clients() == ["127.0.0.1"] * 2, "the line is written")
    serving(trained_root, access_log=True, trusted_proxies="127.0.0.1").get("/runs", headers=forwarded)
    wait_until(lambda: clients() == ["127.0.0.1", "127.0.0.1", "192.0.2.7"], "the line is written")


def test_duration_of_a_refusal_does_not_depend_on_the_key(monkeypatch):
    compared = []
    honest = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or honest(a, b))
    keys = read_keys("ann:s3cret,bob:hunter2,eve:third")
    for given, name in ((b"s3cret", "ann"), (b"third", "eve"), (b"s3cre", None), (b"", None)):
        compared.clear()
        found = key_of(keys, f"Bearer {given.decode()}")
        assert (found.name if found else None) == name
        assert compared == [(given, secret) for secret in (b"s3cret", b"hunter2", b"third")]


def test_traceback_in_the_log_contains_no_secret(serving, trained_root, monkeypatch, caplog):
    client = serving(trained_root, api_keys=KEYS)
    monkeypatch.setattr(client.app.state.services.runs, "list", lambda: 1 / 0)
    answer = client.get("/runs", headers=BOB)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "division" not in answer.text
    assert "ZeroDivisionError" in caplog.text
    for text in (caplog.text, client.get("/metrics", headers=BOB).text):
        assert "hunter2" not in text
        assert "s3cret" not in text


def test_parallel_wrong_keys_of_one_address_are_limited(monkeypatch):
    monkeypatch.setattr("app.server.auth.WRONG_KEY_SECONDS", 0.2)
    compared = []
    monkeypatch.setattr("app.server.auth._find", lambda keys, given: compared.append(given) or None)
    statuses: Counter[int] = Counter()

    async def guess(address: str) -> None:
        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses[message["status"]] += 1

        scope = {
            "type": "http",
            "path": "/runs",
            "method": "GET",
            "client": (address, 1),
            "query_string": b"",
        }
        await keys(scope | {"headers": [(b"authorization", b"Bearer x")]}, None, send)

    async def attack() -> None:
        await asyncio.gather(*(guess("192.0.2.1") for _ in range(60)), guess("192.0.2.2"))

    keys = ApiKeys(None, read_keys("ann:s3cret"))
    asyncio.run(attack())
    assert statuses == {401: 17, 429: 44}
    assert len(compared) == 17
    asyncio.run(guess("192.0.2.1"))
    assert statuses[401] == 18  # the limit is on parallel attempts only
