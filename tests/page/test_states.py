"""States that happen, as the laboratory shows them in a real browser: silence, overload, losses, refusals."""

import contextlib
import re
import socket
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.store.run_store import RunStore
from tests.support.browser import LOST, write
from tests.support.runs import gru_like, small_text, stop, wait_until, worker_process
from tests.support.servers import server_process


@pytest.fixture
def growing(tmp_path: Path) -> RunStore:
    """A store with a run that takes longer than any test."""
    store = RunStore(tmp_path / "checkpoints")
    store.create("growing", gru_like(steps=1_000_000, checkpoint_every=500), small_text(), "small.txt")
    return store


def steps(page: Page) -> int:
    """Updates of the run that Live shows."""
    text = (page.locator("#live-step").text_content() or "").split(" ")[0]
    return int(text.replace(",", "") or -1)


def test_a_worker_that_is_gone_is_told_of_and_texts_are_still_written(opened, growing):
    with server_process(growing.root) as client:
        page = opened(client.base_url, expected=LOST)
        with worker_process(growing) as worker:
            expect(page.locator("#live-state")).to_have_text("training")
            expect(page.locator("#banner")).to_be_hidden()
            worker.kill()
        run = growing.get("growing")
        # as it will stand when its silence has lasted
        run.write_status(run.status.model_copy(update={"heartbeat": time.time() - 60}))
        expect(page.locator("#banner")).to_contain_text("its worker is silent")
        expect(page.locator("#live-state")).to_have_text("worker silent")
        write(page, "the ", length="30")


def test_the_curve_goes_on_by_itself_after_a_restart_of_the_server(opened, growing):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with contextlib.ExitStack() as server, worker_process(growing):
        client = server.enter_context(server_process(growing.root, at=port))
        page = opened(client.base_url, expected=LOST)
        asked = []
        page.on("request", lambda request: asked.append(request) if "/events" in request.url else None)
        expect(page.locator("#live-chart canvas")).to_be_visible()
        server.close()
        expect(page.locator("#banner")).to_contain_text("does not answer")
        before, count = steps(page), len(asked)
        with server_process(growing.root, at=port):
            expect(page.locator("#banner")).to_be_hidden()
            expect(page.locator("#live-step")).not_to_have_text(re.compile(f"^{before:,} "))
            assert steps(page) > before
            places = [request.headers.get("last-event-id") for request in asked[count:]]
            assert places
            assert all(re.fullmatch(r"\d+\.\d+\.\d+", place or "") for place in places)


def test_the_page_follows_a_run_instead_of_asking_again_and_again(opened, growing):
    with server_process(growing.root) as client, worker_process(growing):
        page = opened(client.base_url, expected=LOST)
        expect(page.locator("#live-chart canvas")).to_be_visible()
        client.patch("/runs/growing", json={"action": "pause"})  # no more checkpoints, which are asked for
        expect(page.locator("#live-state")).to_have_text("paused")
        client.patch("/runs/growing", json={"action": "resume"})
        expect(page.locator("#live-state")).to_have_text("training")
        # frames of the stream alone move the numbers, also where nothing else is answered any more
        page.route(re.compile(r"/runs$|/loss-curve|/samples"), lambda route: route.abort())
        step = steps(page)
        page.wait_for_function(
            "before => Number(document.getElementById('live-step').textContent.split(' ')[0]"
            ".replaceAll(',', '')) > before + 2",
            arg=step,
        )


def test_a_busy_server_is_waited_for_as_long_as_it_asks(opened, serving, trained_root):
    client = serving(trained_root, rate_limit="1/5seconds")
    page = opened(client.base_url, expected="429")
    write(page, "the ", length="30")
    page.evaluate(
        """() => {
            const told = window.told = [];
            new MutationObserver(() => told.push(document.getElementById("play-made").textContent)).observe(
                document.getElementById("play-made"), {childList: true});
        }"""
    )
    for _ in range(3):  # a window of the limit may end between two texts, but not between each two of four
        write(page, "the ", length="30")
        if told := page.evaluate("window.told.filter(text => text.includes('busy'))"):
            break
    waits = [int(re.search(r"in (\d+) s", text)[1]) for text in told]
    assert waits
    assert waits[-1] == 1  # counted down
    assert max(waits) <= 5


def test_what_is_too_long_is_marked_and_can_be_cut_off(opened, serving, trained_root):
    page = opened(serving(trained_root, max_prompt=40).base_url)
    page.fill("#play-prompt", "the cat sat " * 5)
    expect(page.locator("#play-unknown")).to_contain_text("At most 40 characters can be read: 20 too many")
    assert page.locator("#play-form .marks mark").text_content() == ("the cat sat " * 5)[40:]
    page.click("#play-unknown button")
    expect(page.locator("#play-unknown")).to_be_hidden()
    assert page.input_value("#play-prompt") == ("the cat sat " * 5)[:40]
    assert write(page, page.input_value("#play-prompt"), length="10000").startswith("the cat")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_a_run_that_is_deleted_meanwhile_leaves_the_page(opened, trained: RunStore):
    with server_process(trained.root) as client:
        page = opened(client.base_url, expected=f"{LOST}|404")
        page.get_by_role("button", name="Watch classic").click()
        expect(page.locator("#live-run")).to_have_text("classic")
        page.select_option("#play-form [name=model]", "classic")
        # another client deletes it
        assert client.delete("/runs/classic").status_code == 200
        page.click("#play-write")
        expect(page.locator("#play-made")).to_contain_text("deleted meanwhile")
        expect(page.locator("#live-run")).to_have_text("gru")
        expect(page.locator("#travel-run option")).to_have_count(1)
        expect(page.locator("[data-run=classic]")).to_have_count(0)
        page.locator("#play-prompt").focus()
        expect(page.locator("#play-form [name=model] option:checked")).to_have_text("classic (gone)")


def test_without_a_clipboard_the_text_to_copy_is_shown_and_chosen(client, opened):
    page = opened(client.base_url)
    write(page, "the ", length="30", seed="5")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.locator("#play-copied")).to_contain_text("copied by hand")
    chosen = page.evaluate("getSelection().toString()")
    assert chosen.startswith("curl -s http://127.0.0.1")
    assert '"seed":5' in chosen


def test_a_store_that_nobody_works_on_says_so(opened, tmp_path):
    store = RunStore(tmp_path / "checkpoints")
    store.create("waiting", gru_like(), small_text(), "small.txt")
    with server_process(store.root) as client:
        page = opened(client.base_url, expected=LOST)
        expect(page.locator("#live-empty")).to_contain_text("waiting is queued")
        with worker_process(store) as worker:
            expect(page.locator("[data-run=waiting] .state")).to_have_text("finished")
            wait_until(lambda: store.get("waiting").status.state == "finished", "it is trained")
            stop(worker)
        expect(page.locator("#serving")).to_contain_text("is being served")
