"""Requests from pages of other sites, and under foreign host names (DNS rebinding)."""

import httpx
import pytest

from app.server.origins import is_allowed

EVIL = "https://evil.example"


def outcome(client: httpx.Client, method: str, path: str, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.request(method, path, headers=named, json={} if method != "GET" else None).status_code


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": EVIL},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec_fetch_site": "cross-site"},
        {"origin": EVIL, "sec_fetch_site": "cross-site"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/generate"),
        ("POST", "/v1/completions"),
        ("POST", "/runs"),
        ("PATCH", "/runs/gru"),
        ("DELETE", "/runs/gru"),
    ],
)
def test_request_from_another_site_changes_nothing(client: httpx.Client, method: str, path: str, headers):
    before = client.get("/runs").json()["runs"]
    assert outcome(client, method, path, **headers) == 403
    assert client.get("/runs").json()["runs"] == before


def test_own_page_and_programs_are_accepted(client: httpx.Client):
    own = f"http://{client.base_url.netloc.decode()}"
    assert outcome(client, "POST", "/generate") == 200
    assert outcome(client, "POST", "/generate", origin=own, sec_fetch_site="same-origin") == 200
    assert outcome(client, "POST", "/generate", sec_fetch_site="none") == 200
    assert outcome(client, "GET", "/runs", origin=EVIL, sec_fetch_site="cross-site") == 200


def test_request_from_a_listed_origin_is_accepted(serving, trained_root):
    client = serving(trained_root, cors_origins=f"{EVIL}, https://other.example")
    assert outcome(client, "POST", "/generate", origin=EVIL, sec_fetch_site="cross-site") == 200
    assert outcome(client, "POST", "/generate", origin="https://third.example") == 403


@pytest.mark.parametrize(("method", "path"), [("GET", "/runs"), ("POST", "/generate"), ("GET", "/")])
def test_request_under_a_foreign_host_name_is_refused(client: httpx.Client, method: str, path: str):
    answer = client.request(method, path, headers={"host": "evil.example:8000"})
    assert answer.status_code == 403
    assert "'evil.example:8000'" in answer.text
    assert "CHARLOOM_ALLOWED_HOSTS" in answer.text
    assert client.get("/healthz", headers={"host": "10.0.0.1.evil.example"}).status_code == 200


def test_configured_host_names_are_accepted(serving, trained_root):
    client = serving(trained_root, allowed_hosts="texts.example.org, *.example.net", host="mine.example")
    for host in ("texts.example.org", "a.example.net:80", "mine.example", "TEXTS.example.org."):
        assert outcome(client, "GET", "/runs", host=host) == 200
    for host in ("example.net", "other.example.org", "evilexample.net"):
        assert outcome(client, "GET", "/runs", host=host) == 403


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "127.0.0.1", "[::1]:8000", "192.168.0.7:80", "server", "a.localhost"],
)
def test_addresses_and_local_names_are_always_allowed(host: str):
    assert is_allowed(host, ())


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "1.2.3.4.5"]
)
def test_public_names_are_allowed_only_by_a_wildcard(host: str):
    assert not is_allowed(host, ())
    assert is_allowed(host, ("*",))


def test_answers_cannot_be_embedded_by_other_sites(client: httpx.Client):
    for path in ("/loss-curve.svg", "/runs", "/", "/nothing"):
        assert client.get(path).headers["cross-origin-resource-policy"] == "same-origin"


def test_json_that_needs_a_key_is_not_cached(serving, trained_root):
    client = serving(trained_root, api_keys="ann:s3cret")
    for path in ("/runs", "/loss-curve.json", "/v1/models"):
        answer = client.get(path, headers={"authorization": "Bearer s3cret"})
        assert answer.headers["cache-control"] == "no-store", path
