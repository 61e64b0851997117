"""Inside in a real browser: a text as the network reads it."""

import pytest
from playwright.sync_api import expect

from tests.support.browser import write


@pytest.mark.slow
def test_text_is_shown_by_surprise_and_by_unit(client, opened):
    page = opened(f"{client.base_url}#inside")
    page.fill("#inside-prompt", "the cat sat")
    page.click("#inside-form [type=submit]")
    expect(page.locator("#inside-text span")).to_have_count(11)
    page.focus("#inside-text")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#inside-detail")).to_contain_text("“h”")
    expect(page.locator("#inside-detail .likely li")).to_have_count(5)
    page.get_by_text("A hidden unit").click()
    expect(page.locator("#inside-none")).to_be_visible()  # 11 characters confirm nothing
    page.fill("#inside-prompt", "")
    page.click("#inside-form [type=submit]")
    expect(page.locator("#inside-none")).to_be_hidden()
    expect(page.locator("#inside-units button").first).to_have_attribute("aria-pressed", "true")
    page.locator("#inside-units button").last.click()
    expect(page.locator("#inside-units button").last).to_have_attribute("aria-pressed", "true")


@pytest.mark.slow
def test_text_of_write_can_be_inspected(client, opened):
    page = opened(f"{client.base_url}#write")
    text = write(page, "the ", length="40")
    page.click("#write-inside")
    expect(page.locator("#inside-text span")).to_have_count(len(text))
    assert page.input_value("#inside-prompt") == text


def test_cell_is_shown_with_its_equations(client, opened):
    page = opened(f"{client.base_url}#inside?run=gru")
    page.click("#inside-cell summary")
    expect(page.locator("#inside-cell svg")).to_be_visible()
    expect(page.locator("#inside-equations")).to_contain_text("h = (1 − z) · n + z · h'")
    page.select_option("#run", "classic")
    expect(page.locator("#inside-equations")).to_contain_text("h = tanh(x U + b + h' W)")
