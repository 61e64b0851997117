"""The laboratory in a real browser, against the real server and worker: what people see and do there."""

import contextlib
import json
import re
import socket
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.store.run_store import RunStore
from app.training.trainer import train_run
from tests.support.browser import LOST, NARROW, WIDE, write
from tests.support.runs import gru_like, small_text, worker_process
from tests.support.servers import server_process

HOSTILE = "<img src=x onerror=document.title='hacked'><script>document.title='hacked'</script>"


def test_a_text_streams_in_and_its_link_gives_the_same_bytes(client, opened):
    page = opened(client.base_url)
    growing = """() => {
        const lengths = window.lengths = [];
        new MutationObserver(() => {
            const text = document.querySelector("#play-texts .text");
            if (text) lengths.push(text.textContent.length);
        }).observe(
            document.getElementById("play-texts"), {subtree: true, childList: true, characterData: true}
        );
    }"""
    page.evaluate(growing)
    text = write(page, "the ", length="3000", temperature="1.2")
    assert len(text) == 3004
    assert len(set(page.evaluate("window.lengths"))) > 2  # not all at once

    code = page.locator("#play-code").text_content() or ""
    again = opened(code.splitlines()[0])
    expect(again.locator("#play-again")).to_be_visible()
    assert again.locator("#play-texts .text").text_content() == text

    body = code.split("-d '")[1].split("'\n")[0]
    answer = client.post("/generate", json=json.loads(body)).json()
    assert "the " + answer["text"] == text


def test_several_variants_stand_side_by_side(client, opened):
    page = opened(client.base_url)
    first = write(page, "the ", length="60", seed="7", n="3")
    texts = page.locator("#play-texts .text").all_text_contents()
    assert len(set(texts)) == 3
    assert texts[0] == first == write(page, "the ", n="1")


def test_hostile_prompts_are_shown_as_text_and_unseen_characters_are_marked(client, opened):
    page = opened(client.base_url, expected="422")
    page.fill("#play-prompt", HOSTILE)
    page.click("#play-write")
    expect(page.locator("#play-unknown")).to_contain_text("has never seen")
    box = page.locator("#play-form .marks")
    assert (box.text_content() or "").startswith(HOSTILE)
    assert box.locator("mark").first.text_content() == "<"
    page.click("#play-unknown button")
    assert not set("<>='") & set(page.input_value("#play-prompt"))
    page.click("#play-write")
    expect(page.locator("#play-again")).to_be_visible()
    hostile = opened(
        f"{client.base_url}#play?prompt={HOSTILE.replace('#', '%23')}&model={HOSTILE}", expected="404"
    )
    expect(hostile.locator("#play-made")).to_contain_text("deleted meanwhile")
    assert "hacked" not in page.title() + hostile.title()


def test_the_slider_goes_through_the_ages_of_a_network(client, opened):
    page = opened(client.base_url)
    expect(page.locator("#travel-step")).to_contain_text("after 60 updates")
    page.focus("#travel-at")
    page.keyboard.press("Home")
    expect(page.locator("#travel-step")).to_contain_text("after 0 updates")
    samples = client.get("/samples", params={"model": "classic"}).json()["samples"]
    assert page.locator("#travel-text").text_content() == samples[0]["text"]
    page.get_by_text("Your prompt, each time").click()
    page.locator("#travel-form [name=prompt]").fill("the ")
    page.locator("#travel-form [name=seed]").fill("5")
    page.focus("#travel-at")
    page.keyboard.press("Home")
    request = {"model": "classic@0", "prompt": "the ", "seed": 5, "temperature": 0.7, "length": 400}
    expected = client.post("/generate", json=request).json()["text"]
    expect(page.locator("#travel-text")).to_have_text(f"the {expected}", use_inner_text=False)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#travel-step")).not_to_contain_text("after 0 updates")


def test_inside_a_text_by_surprise_and_by_unit(client, opened):
    page = opened(client.base_url)
    page.fill("#inside-prompt", "the cat sat")
    page.click("#inside-form [type=submit]")
    expect(page.locator("#inside-text span")).to_have_count(11)
    page.focus("#inside-text")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#inside-detail")).to_contain_text("“h”")
    expect(page.locator("#inside-detail .likely li")).to_have_count(5)
    page.get_by_text("A hidden unit").click()
    expect(page.locator("#inside-units button").first).to_have_attribute("aria-pressed", "true")
    page.locator("#inside-units button").last.click()
    expect(page.locator("#inside-units button").last).to_have_attribute("aria-pressed", "true")


def test_the_proof_is_run_for_a_cell(client, opened):
    page = opened(client.base_url)
    page.select_option("#proof-network", "cell=gru")
    page.click("#proof-form button")
    expect(page.locator("#proof-verdict")).to_contain_text("All 9 are right")
    # set once the picture is here
    expect(page.locator("#proof-picture")).to_have_attribute("src", re.compile("gradcheck.svg"))


def test_the_curve_grows_while_the_worker_trains(opened, tmp_path):
    store = RunStore(tmp_path / "checkpoints")
    store.create("growing", gru_like(steps=1_000_000, checkpoint_every=500), small_text(), "small.txt")
    with server_process(store.root) as client:
        page = opened(client.base_url, expected=LOST)
        expect(page.locator("#live-empty")).to_be_visible()
        with worker_process(store):
            expect(page.locator("#live-chart canvas")).to_be_visible()
            expect(page.locator("#live-state")).to_have_text("training")
            step = page.locator("#live-step").text_content() or ""
            expect(page.locator("#live-step")).not_to_have_text(step)


def test_the_page_survives_a_restart_of_its_server(opened, trained_root: Path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(server_process(trained_root, at=port))
        page = opened(client.base_url, expected=LOST)
        before = write(page, "the ", length="30", seed="3")
        stack.close()
        expect(page.locator("#banner")).to_contain_text("does not answer")
        page.click("#play-write")
        expect(page.locator("#play-made")).to_contain_text("does not answer")
        with server_process(trained_root, at=port):
            expect(page.locator("#banner")).to_be_hidden()
            assert write(page, "the ") == before


def serious_faults(page: Page) -> list[tuple[str, list[str]]]:
    found = Axe().run(page).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in grave]


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(client, opened, viewport, scheme):
    page = opened(client.base_url, viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    expect(page.locator("#live-chart canvas")).to_be_visible()
    write(page, "the ", length="40")
    page.click("#play-inside")
    expect(page.locator("#inside-detail .likely")).to_be_visible()
    text = {"name": "mine.txt", "mimeType": "text/plain", "buffer": b"the same line again\n" * 300}
    page.set_input_files("#train-file", text)
    expect(page.locator("#train-findings .warning").first).to_be_visible()
    assert serious_faults(page) == []
    for dialog, action in (("#fork", "Fork gru"), ("#delete", "Delete gru")):
        page.get_by_role("button", name=action, exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.locator(dialog)).to_be_visible()
        assert serious_faults(page) == []
        page.keyboard.press("Escape")
        expect(page.locator(dialog)).to_be_hidden()
        # back to where one was
        assert page.evaluate("document.activeElement.ariaLabel") == action
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_the_heading_names_the_network_that_is_served(client, opened, serving, tmp_path):
    heading = opened(client.base_url).locator("#serving")
    expect(heading).to_contain_text("is being served: 2 layers of 12 GRU units, learned from small.txt")
    store = RunStore(tmp_path / "checkpoints")
    run = store.create("pair", gru_like(layers=1, members=2, steps=10), small_text(), "small.txt")
    train_run(run, lambda: False)
    pair = serving(store.root)
    heading = opened(pair.base_url).locator("#serving")
    expect(heading).to_contain_text("2 networks side by side, each of 12 GRU units, learned from")
    for kind in ("text/html", "text/markdown"):
        assert "2 networks side by side, each gru" in pair.get("/report", headers={"accept": kind}).text


def test_a_store_without_a_run_says_what_is_missing(opened, serving, tmp_path):
    page = opened(serving(RunStore(tmp_path).root).base_url, expected="503")
    expect(page.locator("#live-empty")).to_be_visible()
    page.click("#play-write")
    expect(page.locator("#play-made")).to_contain_text("no checkpoint")
