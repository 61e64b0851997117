"""Makes the pictures of the page in README and docs, from a store that `make serve` has trained.

    make pictures [ARGS="--store checkpoints"]

Serves the store without a worker, opens the page in Chromium, and writes to docs/images/.
"""

import argparse
import contextlib
import shutil
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from tests.support.browser import BROWSERS, FLAGS, NAMED
from tests.support.servers import server_process

IMAGES = Path("docs/images")
SIZE: ViewportSize = {"width": 1440, "height": 900}
PICTURES = {"loss-curve-classic": "/loss-curve.png?model=classic", "gradcheck": "/gradcheck.png"}


def open_view(browser: Browser, address: str) -> Page:
    page = browser.new_page(viewport=SIZE, reduced_motion="reduce")
    page.set_default_timeout(60_000)
    page.goto(address)
    return page


def keep(page: Page, name: str) -> None:
    page.wait_for_timeout(500)
    page.screenshot(path=IMAGES / f"{name}.png")
    print(IMAGES / f"{name}.png")
    page.close()


def live(browser: Browser, root: str) -> None:
    page = open_view(browser, root)
    page.wait_for_selector("#live-real-then:not(:empty)", state="attached")
    page.wait_for_selector("#live-curve path[d^=M]", state="attached")
    keep(page, "live")


def inside(browser: Browser, root: str) -> None:
    page = open_view(browser, f"{root}/#inside")
    page.get_by_text("A hidden unit").click()
    page.click("#inside-form [type=submit]")
    page.wait_for_selector("#inside-units button")
    keep(page, "inside")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("checkpoints"))
    store = parser.parse_args().store
    path = NAMED or next(filter(None, map(shutil.which, BROWSERS)))
    with contextlib.ExitStack() as stack:
        client: httpx.Client = stack.enter_context(server_process(store))
        root = str(client.base_url).rstrip("/")
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        stack.callback(browser.close)
        live(browser, root)
        inside(browser, root)
        for name, address in PICTURES.items():
            (IMAGES / f"{name}.png").write_bytes(client.get(address, timeout=120).raise_for_status().content)
            print(IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
