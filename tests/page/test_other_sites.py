"""Pages of other sites, in a real browser, cannot use a server on this machine."""

import http.server
import shutil
import threading
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page

from tests.support.runs import LONGEST_WAIT, small_text

ADMIN = "bob:hunter2:admin"
TEXT = small_text().replace("ï", "i")  # ASCII, so that the encoding is never the reason of a refusal


@pytest.fixture
def evil() -> Iterator[str]:
    """The address of another site, with an empty page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<!doctype html><link rel=icon href='data:,'>"
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://evil.example:{server.server_address[1]}/"
        server.shutdown()
        thread.join(LONGEST_WAIT)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(http_credentials={"username": "anybody", "password": "hunter2"})
    page = context.new_page()
    page.set_default_timeout(1000 * LONGEST_WAIT)
    yield page
    context.close()


def states(client: httpx.Client) -> list[tuple[str, str]]:
    runs = client.get("/runs", headers={"authorization": "Bearer hunter2"}).json()["runs"]
    return [(run["name"], run["state"]) for run in runs]


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", ["/runs?name=stolen", "/runs/gru/fork?name=stolen", "/v1/fine_tuning/jobs/ftjob-queued/cancel"]
)
# no fetch after a Basic login: Chromium does not send the password with fetches from another site
@pytest.mark.parametrize(
    ("way", "keys"),
    [("fetch", ""), ("form", ""), ("form", ADMIN)],
    ids=["fetch", "form", "form after a Basic login"],
)
def test_page_of_another_site_changes_nothing(
    page: Page, evil: str, serving, trained_root, tmp_path, path: str, way: str, keys: str
):
    shutil.copytree(trained_root, tmp_path / "store")
    client = serving(tmp_path / "store", api_keys=keys)
    key = {"authorization": "Bearer hunter2"}
    queued = client.post("/runs?name=queued", content=TEXT, headers=key)
    assert queued.status_code == 202
    before = states(client)
    page.goto(f"{client.base_url}/")  # the browser logs in, if a password is required
    page.goto(evil)
    target = f"{client.base_url}{path}"
    if way == "fetch":
        # the result is hidden from the page, and the browser may report it as a failure
        page.evaluate(
            """async ([url, text]) => {
                const options = {method: "POST", mode: "no-cors", credentials: "include", body: text};
                await fetch(url, options).then(() => {}, () => {});
            }""",
            [target, TEXT],
        )
    else:
        page.evaluate(
            """([url, text]) => {
                const form = document.createElement("form");
                Object.assign(form, {method: "POST", action: url, enctype: "text/plain"});
                const field = document.createElement("textarea");
                Object.assign(field, {name: "text", value: text});
                form.append(field);
                document.body.append(form);
                form.submit();
            }""",
            [target, TEXT],
        )
        page.wait_for_url(f"{client.base_url}/**")
    assert states(client) == before


@pytest.mark.slow
def test_page_under_a_rebound_host_name_reads_nothing(page: Page, serving, trained_root):
    client = serving(trained_root)
    answer = page.goto(f"http://evil.example:{client.base_url.port}/runs")
    assert answer is not None
    assert answer.status == 403
    assert "gru" not in page.content()
    status = page.evaluate("async () => (await fetch('/runs/gru', {method: 'DELETE'})).status")
    assert status == 403


@pytest.mark.slow
def test_own_page_can_use_the_server(page: Page, serving, trained_root):
    client = serving(trained_root)
    page.goto(f"http://localhost:{client.base_url.port}/docs")
    options = {"method": "POST", "headers": {"content-type": "application/json"}, "body": "{}"}
    ask = "async (options) => (await fetch('/generate', options)).status"
    assert page.evaluate(ask, options) == 200
