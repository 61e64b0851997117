"""A text of the user in a real browser: inspected, trained, followed to its end, or refused."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.store.run_store import RunStore
from tests.support.browser import before_the_module, go
from tests.support.runs import gru_like, small_text, worker_process
from tests.support.servers import server_process


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "checkpoints")
    store.root.mkdir()
    return store


def text_file(text: str, name: str = "My Notes.txt") -> dict[str, object]:
    return {"name": name, "mimeType": "text/plain", "buffer": text.encode()}


def choose(page: Page, text: str, steps: str = "400000") -> None:
    """Choose a file with `text`, and settings for a small network."""
    page.set_input_files("#teach-file", text_file(text))
    page.locator("#teach").get_by_text("Settings", exact=True).click()
    page.fill("#teach [name=hidden]", "8")
    page.fill("#teach [name=amount]", steps)
    page.select_option("#teach [name=unit]", "steps")


@pytest.mark.slow
def test_text_is_inspected_before_it_is_trained(opened, store):
    with server_process(store.root) as client:
        page = opened(client.base_url)
        choose(page, "the same line again\n" * 300)
        expect(page.locator("#teach-summary")).to_contain_text("My Notes.txt: 6,000 characters")
        expect(page.locator("#teach-beginning")).to_contain_text("the same line again")
        expect(page.locator("#teach-findings .warning").first).to_be_visible()
        expect(page.locator("#teach-expected")).to_contain_text("8 GRU units: ")
        expect(page.locator("#teach-expected")).to_have_text(
            re.compile(r"choose among \d+\.\d to \d+\.\d characters\.$")
        )
        expect(page.locator("#teach-start")).to_be_visible()
        assert not client.get("/runs").json()["runs"]


@pytest.mark.slow
def test_text_and_settings_given_while_the_page_loads_are_kept(client, opened):
    page = opened(f"{client.base_url}/healthz")
    with before_the_module(page, str(client.base_url), "views/live"):
        choose(page, "the same line again\n" * 300)
    expect(page.locator("#teach-expected")).to_contain_text("8 GRU units: ")


@pytest.mark.slow
def test_settings_are_kept_when_a_text_is_chosen(client, opened):
    page = opened(client.base_url)
    for hidden in ("8", "9"):
        page.locator("#teach [name=hidden]").evaluate("(field, value) => { field.value = value }", hidden)
        page.set_input_files("#teach-file", text_file("the same line again\n" * 300))
        expect(page.locator("#teach-expected")).to_contain_text(f"{hidden} GRU units: ")


@pytest.mark.slow
def test_page_follows_the_training_of_its_text(opened, store):
    store.create("other", gru_like(steps=1_000_000, checkpoint_every=500), small_text(), "small.txt")
    with server_process(store.root) as client, worker_process(store):
        page = opened(client.base_url, reduced_motion="reduce")
        expect(page.locator("#live-title")).to_contain_text("is learning")
        choose(page, small_text(), steps="300")
        expect(page.locator("#teach-first-text")).to_have_text("now, while other waits")
        expect(page.locator("#teach-expected")).to_contain_text("8 GRU units")
        page.click("#teach-start")
        expect(page.locator("#teach-title")).to_have_text("Your text: My Notes.txt")
        assert page.url.endswith("#live?run=my-notes")
        expect(page.locator("#teach-state")).to_have_text("It has learned.")
        expect(page.locator("#live-title")).to_have_text("This network learned to write from My Notes.txt")
        expect(page.locator("#teach-ended")).to_contain_text("It read the text")
        expect(page.locator("#teach-ended")).to_contain_text("of the words it writes are real")
        assert client.get("/runs/my-notes").json()["priority"] == 1
        page.click("#teach-longer")
        expect(page.locator("#run")).to_have_value("my-notes-2")
        assert client.get("/runs/my-notes-2").json()["parent"].startswith("my-notes@")
        assert store.get("my-notes-2").config.minutes == 3


@pytest.mark.slow
def test_unusable_text_is_refused_with_the_position(opened, store):
    with server_process(store.root) as client:
        page = opened(client.base_url, expected="422")
        page.set_input_files("#teach-file", text_file("some text\x00\x01\x02" * 400))
        expect(page.locator("#teach-findings .refusal")).to_be_visible()
        expect(page.locator("#teach-start")).to_be_hidden()
        page.get_by_text("Paste a text instead").click()
        page.fill("#teach [name=text]", small_text())
        expect(page.locator("#teach-summary")).to_contain_text("pasted.txt: 4,000 characters")
        page.click("#teach-start")
        expect(page.locator("#teach-title")).to_have_text("Your text: pasted.txt")
        assert store.get("pasted").text() == small_text()


@pytest.mark.slow
def test_file_dropped_anywhere_is_accepted(client, opened):
    page = opened(client.base_url)
    go(page, "write")
    page.evaluate(
        """text => {
            const files = new DataTransfer();
            files.items.add(new File([text], "dropped.txt", {type: "text/plain"}));
            document.body.dispatchEvent(
                new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true}));
        }""",
        small_text(),
    )
    expect(page.locator("#live")).to_be_visible()
    expect(page.locator("#teach-summary")).to_contain_text("dropped.txt: 4,000 characters")
