"""Training from the laboratory in a real browser: a text looked at, trained on, steered, kept, deleted."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.store.run_store import RunStore
from tests.support.browser import LOST
from tests.support.runs import gru_like, small_text, worker_process
from tests.support.servers import server_process

KEYS = "rita:read-secret,ada:admin-secret:admin"


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "checkpoints")
    store.root.mkdir()
    return store


def text_file(text: str, name: str = "My Notes.txt") -> dict[str, object]:
    return {"name": name, "mimeType": "text/plain", "buffer": text.encode()}


def bring(page: Page, text: str, **fields: str) -> None:
    """Chooses a file with `text` for a small network, and waits until it has been looked at."""
    page.get_by_text("Sizes, rates, encoding").click()
    for name, value in ({"hidden": "8", "amount": "400000"} | fields).items():
        page.fill(f"#train-form [name={name}]", value)
    page.select_option("#train-form [name=unit]", "steps")
    page.set_input_files("#train-file", text_file(text))


def press(page: Page, action: str, name: str) -> None:
    page.get_by_role("button", name=f"{action} {name}", exact=True).click()


def state(page: Page, name: str):
    return page.locator(f"[data-run='{name}'] .state")


def test_a_text_is_looked_at_then_trained_on_and_steered(opened, store):
    with server_process(store.root) as client, worker_process(store):
        page = opened(client.base_url, expected=LOST)
        expect(page.locator("#runs-empty")).to_be_visible()
        bring(page, "the same line again\n" * 300)
        expect(page.locator("#train-findings")).to_contain_text("before")
        expect(page.locator("#train-summary")).to_contain_text("6,000 characters")
        assert not client.get("/runs").json()["runs"]  # looking starts nothing
        page.click("#train-start")
        expect(page.locator("#train-made")).to_contain_text("my-notes trains")
        expect(state(page, "my-notes")).to_contain_text("training")
        expect(page.locator("#live-run")).to_have_text("my-notes")
        press(page, "Pause", "my-notes")
        expect(state(page, "my-notes")).to_have_text("paused")
        press(page, "Resume", "my-notes")
        expect(state(page, "my-notes")).to_contain_text("training")
        press(page, "Stop", "my-notes")
        expect(state(page, "my-notes")).to_have_text("stopped")
        assert client.get("/runs/my-notes").json()["state"] == "stopped"


def test_a_run_is_forked_exported_deleted_and_taken_in_again(opened, trained: RunStore, tmp_path):
    with server_process(trained.root) as client:
        page = opened(client.base_url, expected=f"{LOST}|409")
        press(page, "Fork", "gru")
        page.select_option("#fork-form [name=step]", "20")
        page.fill("#fork-form [name=name]", "again")
        page.fill("#fork-form [name=learning_rate]", "0.002")
        page.fill("#fork-form [name=amount]", "50")
        page.select_option("#fork-form [name=unit]", "steps")
        page.locator("#fork-form [type=submit]").click()
        expect(page.locator("#runs-made")).to_contain_text("again waits")
        expect(page.locator("[data-run=again]")).to_contain_text("forked from gru@20")
        assert trained.get("again").config.learning_rate == 0.002
        with page.expect_download() as downloading:
            press(page, "Export", "gru")
        exported = tmp_path / downloading.value.suggested_filename
        downloading.value.save_as(exported)
        for name in ("again", "classic"):
            press(page, "Delete", name)
            page.click("#delete-yes")
            expect(page.locator(f"[data-run={name}]")).to_have_count(0)
        press(page, "Delete", "gru")
        page.click("#delete-no")
        press(page, "Delete", "gru")
        page.click("#delete-yes")
        expect(page.locator("#delete-what")).to_contain_text("only one that can be served")
        page.click("#delete-yes")
        expect(page.locator("#runs-empty")).to_be_visible()
        assert not client.get("/runs").json()["runs"]
        page.set_input_files("#runs-import", exported)
        expect(page.locator("#runs-made")).to_contain_text("is here, at 60 updates")
        assert len(client.get("/runs").json()["runs"]) == 1


def test_a_text_that_cannot_be_used_is_refused_with_the_place(opened, store):
    with server_process(store.root) as client:
        page = opened(client.base_url, expected=f"{LOST}|422")
        bring(page, "some text\x00\x01\x02" * 400)
        expect(page.locator("#train-findings .refusal")).to_be_visible()
        expect(page.locator("#train-start")).to_be_disabled()
        page.get_by_text("or paste one").click()
        page.fill("#train-form [name=text]", small_text())
        expect(page.locator("#train-summary")).to_contain_text("pasted.txt: 4,000 characters")
        page.click("#train-start")
        expect(page.locator("#train-made")).to_contain_text("pasted trains")
        assert store.get("pasted").text() == small_text()


def test_a_dropped_file_is_taken_wherever_it_falls(client, opened):
    page = opened(client.base_url)
    page.evaluate(
        """text => {
            const files = new DataTransfer();
            files.items.add(new File([text], "dropped.txt", {type: "text/plain"}));
            document.body.dispatchEvent(
                new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true}));
        }""",
        small_text(),
    )
    expect(page.locator("#train-chosen")).to_have_text("dropped.txt")
    expect(page.locator("#train-summary")).to_contain_text("4,000 characters")


def test_a_key_is_asked_for_where_one_is_missing(opened, store):
    store.create("growing", gru_like(steps=1_000_000, checkpoint_every=500), small_text(), "small.txt")
    with server_process(store.root, api_keys=KEYS) as client, worker_process(store):
        page = opened(
            client.base_url,
            expected=f"{LOST}|40",
            http_credentials={"username": "rita", "password": "read-secret"},
        )
        press(page, "Pause", "growing")
        expect(page.locator("#key-why")).to_contain_text("right train")
        page.fill("#key-field", "not a key: ключ")
        page.keyboard.press("Enter")
        expect(page.locator("#key-why")).to_contain_text("not known")
        page.fill("#key-field", "admin-secret")
        page.keyboard.press("Enter")
        expect(page.locator("#key")).to_be_hidden()
        # also the stream of events carries the key
        with page.expect_request(re.compile("/events")) as following:
            page.reload()
        assert following.value.headers["authorization"] == "Bearer admin-secret"
        press(page, "Pause", "growing")
        expect(state(page, "growing")).to_have_text("paused")
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
