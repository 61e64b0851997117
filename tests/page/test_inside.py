"""Inside in a real browser: how the network reads a text."""

import pytest
from playwright.sync_api import expect

from app.training.trainer import train_run
from tests.support.browser import before_the_module, write
from tests.support.runs import gru_like, small_text


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
    expect(page.locator("#inside-none")).to_be_visible()  # 11 characters are too few to confirm a unit
    page.fill("#inside-prompt", "")
    page.click("#inside-form [type=submit]")
    expect(page.locator("#inside-none")).to_be_hidden()
    expect(page.locator("#inside-units button").first).to_have_attribute("aria-pressed", "true")
    page.locator("#inside-units button").last.click()
    expect(page.locator("#inside-units button").last).to_have_attribute("aria-pressed", "true")


@pytest.mark.slow
def test_text_of_the_write_view_can_be_inspected(client, opened):
    page = opened(f"{client.base_url}#write")
    text = write(page, "the ", length="40")
    page.click("#write-inside")
    expect(page.locator("#inside-text span")).to_have_count(len(text))
    assert page.input_value("#inside-prompt") == text


@pytest.mark.slow
def test_cell_is_shown_with_its_equations(client, opened):
    page = opened(f"{client.base_url}#inside?run=gru")
    page.click("#inside-cell summary")
    cell = page.locator("#inside-cell [data-cell]:visible")
    expect(cell).to_contain_text("h = (1 − z) · n + z · h′")
    expect(cell.locator("svg")).to_be_visible()
    page.select_option("#run", "classic")
    expect(cell).to_contain_text("h = tanh(x U + b + h′ W)")
    expect(cell.locator("svg")).to_be_visible()


@pytest.mark.slow
def test_unit_of_a_pair_is_chosen_by_network_and_number(serving, trained, opened):
    config = gru_like(members=2, steps=20, layers=1)
    train_run(trained.create("pair", config, small_text(), "small.txt"), lambda: False)
    client = serving(trained.root)
    page = opened(f"{client.base_url}#inside?run=pair")
    page.get_by_text("A hidden unit").click()
    page.fill("#inside-form [name=network]", "2")
    page.fill("#inside-form [name=unit]", "3")
    page.click("#inside-form [type=submit]")
    expect(page.locator("#inside-made")).to_have_text("pair@20, network 2, unit 3")
    page.fill("#inside-prompt", "the cat")
    page.click("#inside-form [type=submit]")
    expect(page.locator("#inside-text span")).to_have_count(7)
    page.focus("#inside-text")
    page.keyboard.press("End")
    asked = {"model": "pair", "text": "the cat", "unit": config.hidden + 3}
    value = client.post("/activations", json=asked).json()["values"][-1]
    expect(page.locator("#inside-detail")).to_have_text(f"After “t” the unit gives {value:.2f}.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("view", "choice", "fields"),
    [("inside", "unit", "#inside-unit"), ("travel", "prompt", "#travel-own")],
)
def test_choice_made_while_the_page_loads_counts(client, opened, view, choice, fields):
    page = opened(f"{client.base_url}/healthz")
    with before_the_module(page, f"{client.base_url}#{view}", f"views/{view}"):
        # as by a click, or by a browser that restores the form of a page that is loaded again
        page.locator(f"#{view} [type=radio][value={choice}]").evaluate("radio => { radio.checked = true }")
    expect(page.locator(fields)).to_be_visible()


@pytest.mark.slow
def test_correlation_is_explained_on_focus(client, opened):
    page = opened(f"{client.base_url}#inside?run=gru", viewport={"width": 1280, "height": 400})
    page.get_by_text("A hidden unit").click()
    page.click("#inside-form [type=submit]")
    expect(page.locator("#inside-followers")).to_be_visible()
    page.evaluate("scrollTo(0, 0)")
    term = page.locator("#inside-followers dfn")
    assert term.bounding_box()["y"] > 400
    page.evaluate(
        "addEventListener('scroll', () => requestAnimationFrame(() => (window.hasScrolled = true)))"
    )
    term.focus()
    page.wait_for_function("() => window.hasScrolled")
    expect(page.get_by_role("tooltip")).to_contain_text("Correlation, measured on the second half")
