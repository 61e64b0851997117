"""Chromium, and a fixture that opens pages in it."""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect, sync_playwright

from tests.support.runs import LONGEST_WAIT

# removed from the environment, or the program under test would report them as unknown settings
NAMED = os.environ.pop("CHARLOOM_TEST_BROWSER", None)
NEEDED = os.environ.pop("CHARLOOM_TEST_NEEDS_BROWSER", None) is not None
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
# *.example resolves to this machine, as after DNS rebinding
FLAGS += ["--host-resolver-rules=MAP *.example 127.0.0.1"]
# errors of a page that is still open when its server stops: requests are refused, then connections fail
LOST = re.compile(r"net::ERR_|503 \(Service Unavailable\)")
HINT = "no Chromium: `apt install chromium`, or name one with CHARLOOM_TEST_BROWSER=/path/to/chrome"
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = NAMED or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        if NEEDED:
            pytest.fail(HINT)
        pytest.skip(HINT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages. Fails the test if one of them logs an error or sends a request to another host."""
    contexts, complaints, hosts = [], [], set()

    def open_page(url: object, expected: str | None = None, **options: object) -> Page:
        """`expected` matches the errors that the browser logs for requests that are meant to fail."""
        context = browser.new_context(**({"viewport": WIDE} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * LONGEST_WAIT)
        page.on("pageerror", lambda error: complaints.append((str(error), "")))

        def note_error(message: ConsoleMessage) -> None:
            if message.type == "error" and not (expected and re.search(expected, message.text)):
                complaints.append((message.text, message.location.get("url", "")))

        page.on("console", note_error)
        page.on("request", lambda request: hosts.add(httpx.URL(request.url).host))
        page.goto(str(url))
        return page

    expect.set_options(timeout=1000 * LONGEST_WAIT)
    yield open_page
    for context in contexts:
        context.close()
    complaints = [(text, url) for text, url in complaints if not (LOST.search(text) and has_stopped(url))]
    assert not complaints, complaints
    assert hosts <= {"127.0.0.1"}


def has_stopped(url: str) -> bool:
    try:
        httpx.get(httpx.URL(url).join("/healthz"))
    except httpx.ConnectError:
        return True
    return False


def go(page: Page, view: str) -> None:
    """Open a view through the navigation."""
    page.click(f"header [data-view={view}]")
    expect(page.locator(f"#{view}")).to_be_visible()


@contextlib.contextmanager
def before_the_module(page: Page, url: str, module: str) -> Iterator[None]:
    """Open the page; its module arrives after the block."""
    held: list[Route] = []
    page.route(f"**/{module}*.js*", lambda route: held.append(route))
    page.goto(url)
    yield
    for route in held:
        route.continue_()
    assert held


def write(page: Page, prompt: str, **fields: str) -> str:
    """Fill in the Write form, submit it and return the complete text."""
    go(page, "write")
    page.fill("#write-prompt", prompt)
    for name, value in fields.items():
        field = page.locator(f"#write-form [name={name}]")
        if field.evaluate("element => element.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
    page.click("#write-go")
    expect(page.locator("#write-again")).to_be_visible()
    return page.locator("#write-texts .text").first.text_content() or ""
