"""Errors in a real browser: a page in the design of the others, with a link back."""

import pytest
from playwright.sync_api import expect

from app.store.run_store import RunStore
from tests.support.servers import application

FAILED = "Failed to load resource"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("nowhere", "Page not found"),
        ("loss-curve?model=none", "Run or model not found"),
        ("report?model=none", "Run or model not found"),
        ("gradcheck?method=guess", "This cannot be shown"),
        ("v1/models/none", "Run or model not found"),
    ],
)
def test_error_page_has_a_link_back(client, opened, path, title):
    page = opened(f"{client.base_url}/#runs", expected=FAILED)
    page.goto(f"{client.base_url}/{path}")
    expect(page.locator("h1")).to_have_text(title)
    expect(page.locator("main")).not_to_contain_text("{")
    page.get_by_role("link", name="Go back").click()
    expect(page.locator("#runs-title")).to_be_visible()


@pytest.mark.slow
def test_error_of_an_empty_store_shows_no_path(opened, tmp_path):
    RunStore(tmp_path / "checkpoints").root.mkdir()
    with application(tmp_path / "checkpoints") as client:
        page = opened(f"{client.base_url}/loss-curve", expected=FAILED)
        expect(page.locator("h1")).to_be_visible()
        expect(page.locator("main")).not_to_contain_text(str(tmp_path))
        expect(page.get_by_role("link", name="Start page")).to_be_visible()


def test_error_is_json_unless_html_is_accepted(client):
    for accept in ("application/json", "*/*", ""):
        answer = client.get("/nowhere", headers={"accept": accept})
        assert answer.json()["error"]["code"] == "not_found"
