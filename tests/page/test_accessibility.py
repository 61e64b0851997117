"""Every view in a real browser: axe finds no serious fault, in wide and narrow windows, light and dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.support.browser import NARROW, WIDE, go, write


def serious_faults(page: Page) -> list[tuple[str, list[str]]]:
    found = Axe().run(page).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in grave]


@pytest.mark.slow
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_in_any_view(client, opened, viewport, scheme):
    page = opened(client.base_url, viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    expect(page.locator("#live-real-then")).not_to_be_empty()
    text = {"name": "mine.txt", "mimeType": "text/plain", "buffer": b"the same line again\n" * 300}
    page.set_input_files("#teach-file", text)
    expect(page.locator("#teach-findings .warning").first).to_be_visible()
    expect(page.locator("#turn-beginnings button").first).to_be_visible()
    page.fill("#turn-prompt", "the ")
    page.keyboard.press("Enter")
    expect(page.locator("#turn-made a")).to_be_visible()
    assert serious_faults(page) == []
    write(page, "the ", length="40")
    assert serious_faults(page) == []
    page.click("#write-inside")
    expect(page.locator("#inside-detail .likely")).to_be_visible()
    assert serious_faults(page) == []
    for view in ("travel", "curves", "proof", "runs"):
        go(page, view)
        if view == "curves":
            expect(page.locator("#curves-chart canvas")).to_be_visible()
        assert serious_faults(page) == [], view
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], view


@pytest.mark.slow
def test_closed_dialog_returns_the_focus(client, opened):
    page = opened(f"{client.base_url}#runs")
    for dialog, action in (("#fork", "Fork gru"), ("#delete", "Delete gru")):
        page.get_by_role("button", name=action, exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.locator(dialog)).to_be_visible()
        assert serious_faults(page) == []
        page.keyboard.press("Escape")
        expect(page.locator(dialog)).to_be_hidden()
        assert page.evaluate("document.activeElement.ariaLabel") == action
