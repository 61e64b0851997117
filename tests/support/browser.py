"""Chromium, and the fixture that opens pages of the laboratory in it."""

import os
import re
import shutil
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.support.runs import LONGEST_WAIT

# taken out of the environment, where the program under test would call them unknown settings
NAMED = os.environ.pop("CHARLOOM_TEST_BROWSER", None)
NEEDED = os.environ.pop("CHARLOOM_TEST_NEEDS_BROWSER", None) is not None
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
# names of other sites, which lead here as after DNS rebinding
FLAGS += ["--host-resolver-rules=MAP *.example 127.0.0.1"]
# for pages that are still open when the server of their test ends: it refuses what is new, then it is gone
LOST = r"net::ERR_|503 \(Service Unavailable\)"
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
    """Opens pages; at the end none may have logged an error, or have asked another host."""
    contexts, complaints, hosts = [], [], set()

    def open_page(url: object, expected: str | None = None, **options: object) -> Page:
        """`expected` is a pattern of the errors that the browser itself logs of requests that must fail."""
        context = browser.new_context(**({"viewport": WIDE} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * LONGEST_WAIT)
        page.on("pageerror", lambda error: complaints.append(str(error)))

        def heard(message: ConsoleMessage) -> None:
            if message.type == "error" and not (expected and re.search(expected, message.text)):
                complaints.append(f"{message.text} ({message.location.get('url')})")

        page.on("console", heard)
        page.on("request", lambda request: hosts.add(httpx.URL(request.url).host))
        page.goto(str(url))
        return page

    expect.set_options(timeout=1000 * LONGEST_WAIT)
    yield open_page
    for context in contexts:
        context.close()
    assert not complaints, complaints
    assert hosts <= {"127.0.0.1"}


def go(page: Page, view: str) -> None:
    """Opens a view by the navigation."""
    page.click(f"header [data-view={view}]")
    expect(page.locator(f"#{view}")).to_be_visible()


def write(page: Page, prompt: str, **fields: str) -> str:
    """Fills in the form of Write, writes, and gives the text once it is whole."""
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
