"""Proof in a real browser: the gradient check on demand."""

import re

from playwright.sync_api import expect


def test_proof_is_run_for_a_cell(client, opened):
    page = opened(f"{client.base_url}#proof")
    page.select_option("#proof-network", "cell=gru")
    page.click("#proof-form button")
    expect(page.locator("#proof-verdict")).to_contain_text("All 9 are right")
    # set once the picture is here
    expect(page.locator("#proof-picture")).to_have_attribute("src", re.compile("gradcheck.svg"))
