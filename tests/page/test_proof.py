"""Proof in a real browser: the gradient check on demand."""

import re

import pytest
from playwright.sync_api import expect


@pytest.mark.slow
def test_gradient_check_of_a_cell_is_run(client, opened):
    page = opened(f"{client.base_url}#proof")
    page.select_option("#proof-network", "cell=gru")
    page.click("#proof-form button")
    expect(page.locator("#proof-verdict")).to_contain_text("All 9 passed")
    # set once the picture has loaded
    expect(page.locator("#proof-picture")).to_have_attribute("src", re.compile("gradcheck.svg"))


def test_gradient_check_names_parameters_and_explains_the_limit(client, opened):
    page = opened(f"{client.base_url}#proof")
    page.select_option("#proof-network", "model=classic")
    page.click("#proof-form button")
    names = page.locator("#proof-rows .name")
    expect(names).to_have_text(
        [
            "W",
            "V",
            "U",
            "b",
            "c",
            "initial state",
        ]
    )
    expect(page.locator("#proof-progress")).to_be_hidden()
    expect(page.locator("#proof")).to_contain_text("Limit: the error must be below it.")
    expect(page.get_by_role("link", name="The derivation")).to_have_attribute("href", "/derivation")
