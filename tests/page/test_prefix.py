"""The page and the routes below a path prefix of a proxy."""

import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from app.main import create_app
from app.settings import Settings
from app.store.run_store import RunStore
from model.errors import ConfigError
from tests.support.runs import LONGEST_WAIT, small_text, wait_until

NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location {location} {{
      proxy_pass http://127.0.0.1:{upstream}{path};
      proxy_set_header Host $http_host;
      proxy_http_version 1.1;
      proxy_buffering off;
      client_max_body_size 65m;
      client_body_buffer_size 4m;
    }}
  }}
}}
"""


@pytest.fixture
def behind_nginx(
    serving: Callable[..., httpx.Client], trained: RunStore, tmp_path: Path
) -> Iterator[Callable[[bool], str]]:
    """The address of a server below /texts of nginx, which strips the prefix or passes it on."""
    if shutil.which("nginx") is None:
        pytest.skip("no nginx: `apt install nginx-light`")
    processes = []

    def start(stripped: bool) -> str:
        client = serving(trained.root, root_path="/texts")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        folder = tmp_path / "nginx"
        folder.mkdir()
        location, path = ("/texts/", "/") if stripped else ("~ ^/texts(/|$)", "")  # the latter as documented
        values = {"folder": folder, "port": port, "upstream": client.base_url.port}
        values |= {"location": location, "path": path}
        (folder / "nginx.conf").write_text(NGINX.format(**values))
        processes.append(subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf")]))

        def answers() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/texts/healthz").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, "nginx answers")
        return f"http://127.0.0.1:{port}/texts"

    yield start
    for process in processes:
        process.terminate()
        process.wait(LONGEST_WAIT)


@pytest.mark.slow
@pytest.mark.parametrize("stripped", [True, False], ids=["prefix stripped", "prefix passed on"])
def test_page_and_docs_work_below_a_prefix(behind_nginx, opened: Callable[..., Page], stripped: bool):
    url = behind_nginx(stripped)
    page = opened(f"{url}/#write")
    failed: list[str] = []
    page.on("response", lambda got: failed.append(f"{got.status} {got.url}") if got.status >= 400 else None)
    page.on("request", lambda asked: None if "/texts/" in asked.url else failed.append(asked.url))
    page.reload()
    expect(page.locator("body")).to_contain_text("gru")
    for path in ("/loss-curve", "/gradcheck?model=classic@0", "/docs", "/report?model=gru"):
        page.goto(f"{url}{path}")
        page.wait_for_load_state("networkidle")
        for link in page.locator("a[href^='/'], img[src^='/'], script[src^='/']").all():
            address = link.get_attribute("href") or link.get_attribute("src") or ""
            assert address.startswith("/texts/"), (path, address)
    page.goto(f"{url}/#runs")
    page.get_by_role("button", name="Report gru", exact=True).click()
    expect(page).to_have_url(re.compile(r"/texts/report\?model="))
    expect(page.locator("h1")).to_be_visible()
    assert not failed, failed
    text = httpx.post(f"{url}{'/' if stripped else ''}", json={"inputs": "the"}, timeout=LONGEST_WAIT)
    assert text.json()[0]["generated_text"]  # as the clients of Text Generation Inference ask
    big = httpx.post(f"{url}/runs/check", content=small_text(2_000_000), timeout=LONGEST_WAIT)
    assert big.json()["characters"] == 2_000_000
    created = httpx.post(f"{url}/runs?name=mine", content=small_text(), timeout=LONGEST_WAIT)
    assert (created.status_code, created.headers["location"]) == (202, "/texts/runs/mine")
    assert created.json()["url"] == "/texts/runs/mine"
    slash = httpx.get(f"{url}/runs/", timeout=LONGEST_WAIT)
    assert slash.headers.get("location", "/texts/runs").endswith("/texts/runs")
    missing = httpx.get(f"{url}/nothing", headers={"accept": "text/html"}, timeout=LONGEST_WAIT)
    assert missing.status_code == 404
    assert set(re.findall(r'\bhref="(/[^/]*/)', missing.text)) == {"/texts/"}
    markdown = httpx.get(f"{url}/report?model=gru&format=markdown", timeout=LONGEST_WAIT).text
    assert all(path.startswith("/texts/") for path in re.findall(r"\]\((/[^)]*)\)", markdown))


def test_links_of_pages_start_with_the_prefix(serving, trained_root):
    client = serving(trained_root, root_path="/texts/")
    for path in ("/", "/texts/", "/texts", "/loss-curve", "/texts/docs"):
        answer = client.get(path, headers={"accept": "text/html"})
        assert answer.status_code == 200, path
        html = answer.text
        links = re.findall(r'\b(?:href|src|srcset|action)="(/[^"]*)"', html)
        assert links
        assert all(link.startswith("/texts/") for link in links), path
    assert client.get("/openapi.json").json()["servers"][0]["url"] == "/texts"


@pytest.mark.parametrize("prefix", ["/v1", "/runs", "/docs", "/generate/", "/v1/chat", "/assets"])
def test_prefix_that_begins_a_path_of_the_server_is_refused(trained_root, prefix):
    """A request for /runs/runs could be for /runs, or for a run that is named `runs`."""
    with pytest.raises(ConfigError, match="must not be the beginning of a path of the server"):
        create_app(Settings(store=trained_root, root_path=prefix))
    create_app(Settings(store=trained_root, root_path="/texts/runs"))
