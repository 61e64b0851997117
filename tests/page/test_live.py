"""Live, the first view, in a real browser: a passage rewritten while a network learns, and a text field."""

import re

import httpx
import pytest
from playwright.sync_api import Page, expect

from app.store.run_store import RunStore
from app.training.trainer import train_run
from tests.support.browser import NARROW, WIDE, go
from tests.support.runs import gru_like, small_text, worker_process
from tests.support.servers import server_process

SHIFTS = """() => {
    window.shifted = 0;
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
    }).observe({type: "layout-shift", buffered: true});
}"""


def passage(client: httpx.Client, model: str) -> str:
    """The text that the view shows for a checkpoint: prompt and continuation."""
    prompt = client.get(f"/runs/{model.split('@')[0]}/beginnings").json()["beginnings"][0]
    asked = {"model": model, "prompt": prompt, "length": 380, "temperature": 0.6, "seed": 1}
    return prompt + client.post("/generate", json=asked).json()["text"]


def shown(page: Page) -> str:
    return page.locator("#live-text").text_content() or ""


@pytest.mark.slow
def test_passage_is_written_by_the_newest_checkpoint(client, opened):
    page = opened(client.base_url, reduced_motion="reduce")
    expect(page.locator("#live-title")).to_have_text("This network learned to write from small.txt")
    expect(page.locator("#live-text")).to_have_text(passage(client, "gru@60"), use_inner_text=False)
    expect(page.locator("#live-where")).to_contain_text("After update 60 of 60")
    expect(page.locator("#live-real")).to_have_text(re.compile(r"\d+%"))
    expect(page.locator("#live-real-then")).to_have_text(re.compile(r"\(\d+% at the start\)"))
    expect(page.locator("#live-among")).to_have_text(re.compile(r"\d+\.\d"))


@pytest.mark.slow
def test_loss_before_the_first_validation_is_the_smooth_one(opened, serving, tmp_path):
    store = RunStore(tmp_path / "checkpoints")
    run = store.create("new", gru_like(validate_every=50), small_text(), "small.txt")
    steps = iter(range(100))
    train_run(run, lambda: next(steps) == 30)
    status = run.status
    assert status.step < 50
    assert status.validation_step == 0
    run.write_status(status.model_copy(update={"state": "stopped"}))  # so that the page does not follow it
    page = opened(serving(store.root).base_url, reduced_motion="reduce")
    expect(page.locator("#live-where")).to_contain_text(f"After update {status.step} ")
    expect(page.locator("#live-loss")).to_contain_text(f"Loss {run.history()[-1]['smooth_loss']:.2f}.")


@pytest.mark.slow
def test_passage_is_replayed_from_the_untrained_network(client, opened):
    page = opened(client.base_url)
    expect(page.locator("#live-where")).to_contain_text("After update 0 ")
    assert shown(page) == passage(client, "gru@0")
    expect(page.locator("#live-where")).to_contain_text("After update 60 ")
    expect(page.locator("#live-play")).to_have_text("Replay")
    assert shown(page) == passage(client, "gru@60")


@pytest.mark.slow
def test_slider_goes_to_the_start_and_back_to_the_newest_step(client, opened):
    page = opened(client.base_url, reduced_motion="reduce")
    expect(page.locator("#live-where")).to_contain_text("After update 60 ")
    page.focus("#live-at")
    page.keyboard.press("Home")
    expect(page.locator("#live-where")).to_contain_text("After update 0 ")
    assert shown(page) == passage(client, "gru@0")
    page.keyboard.press("End")
    expect(page.locator("#live-where")).to_contain_text("After update 60 ")


@pytest.mark.slow
def test_passage_is_rewritten_while_a_run_trains(opened, tmp_path):
    store = RunStore(tmp_path / "checkpoints")
    store.create("growing", gru_like(steps=1_000_000, checkpoint_every=100), small_text(), "small.txt")
    with server_process(store.root) as client, worker_process(store):
        page = opened(client.base_url)
        expect(page.locator("#live-title")).to_have_text("This network is learning to write from small.txt")
        expect(page.locator("#live-text em").first).to_be_attached()
        before = shown(page)
        page.wait_for_function(
            "before => document.getElementById('live-text').textContent !== before", arg=before
        )
        expect(page).to_have_title("0% · growing · Charloom")


@pytest.mark.slow
def test_layout_does_not_shift_while_the_passage_changes(client, opened):
    page = opened("about:blank")
    page.add_init_script(f"({SHIFTS})()")
    page.goto(str(client.base_url))
    expect(page.locator("#live-where")).to_contain_text("After update 60 ")
    assert page.evaluate("window.shifted") < 0.05


@pytest.mark.slow
def test_enter_key_writes_a_text_and_its_link_reproduces_it(client, opened):
    page = opened(client.base_url)
    expect(page.locator("#turn-write")).to_be_enabled()
    # by then the first beginning has been written into the field
    expect(page.locator("#turn-beginnings button").first).to_be_visible()
    page.fill("#turn-prompt", "the ")
    page.keyboard.press("Enter")
    expect(page.locator("#turn-made a")).to_be_visible()
    text = page.locator("#turn-answer").text_content()
    assert len(text) == 304
    page.click("#turn-made a")
    expect(page.locator("#write-again")).to_be_visible()
    assert page.locator("#write-texts .text").first.text_content() == text


@pytest.mark.slow
def test_click_on_a_beginning_continues_it(client, opened):
    page = opened(client.base_url)
    page.locator("#turn-beginnings button").first.click()
    expect(page.locator("#turn-made a")).to_be_visible()
    assert page.locator("#turn-answer .prompt").text_content() == passage(client, "gru@0")[:-380]


@pytest.mark.slow
def test_unknown_character_is_reported_without_a_text(client, opened):
    page = opened(client.base_url, expected="422")
    expect(page.locator("#turn-write")).to_be_enabled()
    expect(page.locator("#turn-beginnings button").first).to_be_visible()
    page.fill("#turn-prompt", "the €")
    page.keyboard.press("Enter")
    expect(page.locator("#turn-made")).to_have_text("It has never seen “€” in its text. Leave that out.")
    assert page.locator("#turn-answer").text_content() == ""
    below = page.locator("#turn-made").bounding_box()["y"] - page.locator("#turn-prompt").bounding_box()["y"]
    assert below < 160  # pixels: near the prompt


@pytest.mark.slow
def test_chosen_run_is_kept_in_all_views_and_in_the_address(client, opened):
    page = opened(client.base_url, reduced_motion="reduce")
    page.select_option("#run", "classic")
    expect(page.locator("#live-text")).to_have_text(passage(client, "classic@60"), use_inner_text=False)
    go(page, "write")
    assert page.url.endswith("#write?run=classic")
    expect(page.locator("#write-form [name=model]")).to_have_value("classic")
    page.reload()
    expect(page.locator("#run")).to_have_value("classic")
    page.go_back()
    expect(page.locator("#live")).to_be_visible()


@pytest.mark.slow
def test_empty_store_shows_how_to_teach_a_text(opened, serving, tmp_path):
    page = opened(serving(RunStore(tmp_path).root).base_url)
    expect(page.locator("#live-title")).to_have_text("Teach a small neural network to write")
    expect(page.locator("#turn-write")).to_be_disabled()
    expect(page.locator("#run")).to_be_hidden()
    expect(page.locator("#teach-drop")).to_be_visible()
    go(page, "write")
    expect(page.locator("#write-go")).to_be_disabled()
    go(page, "inside")
    expect(page.locator("#inside-form [type=submit]")).to_be_disabled()


@pytest.mark.slow
def test_term_is_explained_on_focus(client, opened):
    page = opened(client.base_url, reduced_motion="reduce")
    expect(page.locator("#live-text")).not_to_be_empty()
    page.get_by_text("wavers between").focus()
    expect(page.get_by_role("tooltip")).to_contain_text("e to the power of the loss")
    page.keyboard.press("Escape")
    expect(page.locator("#tip")).to_be_hidden()


@pytest.mark.slow
def test_skip_link_is_the_first_tab_stop(client, opened):
    page = opened(client.base_url, reduced_motion="reduce")
    expect(page.locator("#live-text")).not_to_be_empty()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    expect(page.locator("#live")).to_be_visible()


@pytest.mark.slow
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_long_name_of_a_run_fits_the_window(opened, tmp_path, viewport):
    store = RunStore(tmp_path / "checkpoints")
    store.create("n" * 64, gru_like(), small_text(), f"{'t' * 60}.txt")
    with server_process(store.root) as client:
        page = opened(client.base_url, viewport=viewport)
        expect(page.locator("#live-title")).to_contain_text("ttt")
        for view in ("live", "write", "travel", "curves", "inside", "proof", "runs"):
            go(page, view)
            if view == "curves":  # drawn once the curve has loaded
                expect(page.locator("#curves-runs label")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], view
