"""The page in a real browser, used with the keyboard alone, and printed."""

import pytest
from playwright.sync_api import Page, expect

from app.store.run_store import RunStore
from tests.support.browser import NARROW, WIDE
from tests.support.servers import server_process

# A fault of the focus ring of the focused element; "" if it is visible and not cut off by a surrounding box.
RING = """() => {
    const focused = document.activeElement;
    const ringed = focused.matches(".drop input") ? focused.closest(".drop") : focused;
    const style = getComputedStyle(ringed);
    const name = `${ringed.localName}#${ringed.id} ${ringed.textContent.trim().slice(0, 20)}`;
    if (focused === document.body) return "";
    if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2) return `${name} has no ring`;
    const grow = parseFloat(style.outlineWidth) + parseFloat(style.outlineOffset);
    const box = ringed.getBoundingClientRect();
    for (let around = ringed.parentElement; around !== document.body; around = around.parentElement) {
        if (getComputedStyle(around).overflowX === "visible") continue;
        const limit = around.getBoundingClientRect();
        const isCut = box.left - grow < limit.left - 0.5 || box.right + grow > limit.right + 0.5
            || box.top - grow < limit.top - 0.5 || box.bottom + grow > limit.bottom + 0.5;
        if (isCut) return `the ring of ${name} is cut off by ${around.localName}#${around.id}`;
    }
    return "";
}"""


def press_until(page: Page, key: str, selector: str) -> None:
    """Press a key until an element has the focus; every element on the way must have a focus ring."""
    for _ in range(60):
        page.keyboard.press(key)
        assert page.evaluate(RING) == ""
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"{key} does not lead to {selector}")


@pytest.mark.slow
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_live_can_be_used_with_the_keyboard_alone(opened, trained: RunStore, viewport):
    with server_process(trained.root) as client:
        page = opened(client.base_url, viewport=viewport, reduced_motion="reduce")
        page.on("filechooser", lambda _: None)  # or the first key may precede the interception
        expect(page.locator("#turn-beginnings button").first).to_be_visible()
        expect(page.locator("#live-text")).not_to_be_empty()
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        assert page.evaluate(RING) == ""
        assert page.locator(".skip").bounding_box()["y"] >= 0
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()
        press_until(page, "Shift+Tab", "[data-view=runs]")
        page.keyboard.press("Enter")
        expect(page.locator("#runs-title")).to_be_focused()
        press_until(page, "Shift+Tab", "[data-view=live]")
        page.keyboard.press("Enter")
        expect(page.locator("#live-title")).to_be_focused()
        press_until(page, "Tab", "#turn-prompt")
        page.keyboard.press("Control+A")
        page.keyboard.type("the ")
        press_until(page, "Tab", "#turn-write")
        page.keyboard.press("Enter")
        expect(page.locator("#turn-made a")).to_be_visible()
        assert (page.locator("#turn-answer").text_content() or "").startswith("the ")
        press_until(page, "Tab", "#teach-file")
        with page.expect_file_chooser() as choosing:
            page.keyboard.press("Enter")
        text = {"name": "mine.txt", "mimeType": "text/plain", "buffer": b"the same line again\n" * 300}
        choosing.value.set_files(text)
        expect(page.locator("#teach-summary")).to_contain_text("mine.txt")
        press_until(page, "Tab", "#teach-start")
        page.keyboard.press("Enter")
        expect(page.locator("#teach-title")).to_have_text("Your text: mine.txt")


@pytest.mark.slow
def test_printed_live_view_has_the_whole_passage_and_no_controls(client, opened):
    page = opened(client.base_url, reduced_motion="reduce", viewport=NARROW)
    expect(page.locator("#live-text")).not_to_be_empty()
    text = page.locator("#live-text")
    assert text.evaluate("element => element.scrollHeight > element.clientHeight")
    page.emulate_media(media="print")
    for kept in ("#live-title", "#live-text", "#live-figures"):
        expect(page.locator(kept)).to_be_visible()
    for control in ("header", "footer", "#run", "#live-play", "#live-at", "#turn", "#teach"):
        expect(page.locator(control)).to_be_hidden()
    assert text.evaluate("element => element.scrollHeight <= element.clientHeight")
