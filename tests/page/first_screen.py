"""How long a new user waits, and how much the layout shifts: measured in Chromium, on a fresh store.

    .venv/bin/python -m tests.page.first_screen [--corpus corpora/shakespeare.txt]

This is not a test. It prints the seconds from the start of `charloom serve` to the first text on the screen,
the seconds from dropping a text of 200 kB to its first passage, and the layout shift at both window sizes.
"""

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.browser import BROWSERS, FLAGS, NAMED, NARROW, WIDE

LONGEST = 120  # seconds
DROPPED = 200_000  # characters
SHIFTS = """() => {
    window.shifted = 0;
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
    }).observe({type: "layout-shift", buffered: true});
}"""
WRITTEN = """(name) => document.getElementById("live-title").textContent.includes(name)
    && document.getElementById("live-text").textContent.length > 50"""
LEARNED = """(name) => document.getElementById("live-title").textContent.includes(name)
    && /update [1-9]/.test(document.getElementById("live-where").textContent)"""


@contextlib.contextmanager
def served(store: Path, corpus: Path) -> Iterator[str]:
    """`charloom serve` with its worker on a fresh store; yields the address before it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--store", str(store)]
    process = subprocess.Popen(
        command,
        env=os.environ | {"CHARLOOM_CORPUS": str(corpus)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(LONGEST)


def opened(browser: Browser, address: str, viewport: dict[str, int]) -> Page:
    """The page, opened as soon as the server answers."""
    page = browser.new_page(viewport=viewport)
    page.set_default_timeout(1000 * LONGEST)
    page.add_init_script(f"({SHIFTS})()")
    for _ in range(50 * LONGEST):
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{address}/healthz")
            break
        time.sleep(0.02)
    page.goto(address)
    return page


def drop(page: Page, text: str) -> None:
    page.evaluate(
        """text => {
            const files = new DataTransfer();
            files.items.add(new File([text], "dropped.txt", {type: "text/plain"}));
            document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true}));
        }""",
        text,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path("corpora/shakespeare.txt"))
    corpus = parser.parse_args().corpus
    path = NAMED or next(filter(None, map(shutil.which, BROWSERS)))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        stack.callback(browser.close)
        began = time.monotonic()
        address = stack.enter_context(served(folder / "checkpoints", corpus.absolute()))
        page = opened(browser, address, WIDE)
        page.wait_for_function(WRITTEN, arg=corpus.name)
        print(f"from `charloom serve` to the first text on the screen: {time.monotonic() - began:.1f} s")
        page.wait_for_function(LEARNED, arg=corpus.name)
        print(f"to the first text of a network that has learned: {time.monotonic() - began:.1f} s")
        began = time.monotonic()
        drop(page, corpus.read_text(encoding="utf-8")[-DROPPED:])
        page.click("#teach-start")
        page.wait_for_function(WRITTEN, arg="dropped.txt")
        print(f"from dropping 200 kB to its first passage, untrained: {time.monotonic() - began:.1f} s")
        page.wait_for_function(LEARNED, arg="dropped.txt")
        print(f"to its first passage after an update: {time.monotonic() - began:.1f} s")
        page.wait_for_timeout(10_000)
        print(f"layout shift meanwhile: {page.evaluate('window.shifted'):.3f}")
        for name, viewport in (("wide", WIDE), ("narrow", NARROW)):
            page = opened(browser, address, viewport)
            page.wait_for_timeout(10_000)
            print(f"layout shift of the first ten seconds, {name}: {page.evaluate('window.shifted'):.3f}")


if __name__ == "__main__":
    main()
