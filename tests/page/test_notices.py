"""Notices of the page in a real browser: no answer from the server, no worker, a missing key."""

import contextlib
import re
import socket
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from app.store.run_store import RunStore
from tests.support.browser import go, write
from tests.support.runs import worker_process
from tests.support.servers import server_process

KEYS = "rita:read-secret,ada:admin-secret:admin"


@pytest.mark.slow
def test_page_works_again_after_a_restart_of_its_server(opened, trained_root: Path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(server_process(trained_root, at=port))
        page = opened(client.base_url)
        before = write(page, "the ", length="30", seed="3")
        stack.close()
        expect(page.locator("#banner")).to_contain_text("does not answer")
        page.click("#write-go")
        expect(page.locator("#write-made")).to_contain_text("does not answer")
        with server_process(trained_root, at=port):
            expect(page.locator("#banner")).to_be_hidden()
            assert write(page, "the ") == before


@pytest.mark.slow
def test_view_can_be_opened_first_while_the_server_is_down(opened, trained_root: Path):
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(server_process(trained_root))
        page = opened(client.base_url, reduced_motion="reduce")
        expect(page.locator("#live-text")).not_to_be_empty()
        page.wait_for_load_state("networkidle")
        stack.close()
        expect(page.locator("#banner")).to_contain_text("does not answer")
        go(page, "write")
        page.fill("#write-prompt", "the ")
        page.click("#write-go")
        expect(page.locator("#write-made")).to_contain_text("does not answer")


@pytest.mark.slow
def test_view_that_could_not_be_loaded_is_loaded_when_it_is_opened(client, opened):
    page = opened(f"{client.base_url}/healthz", expected="ERR_FAILED")
    views = "**/views/write*.js*"
    page.route(views, lambda route: route.abort())
    with page.expect_event("requestfailed"):
        page.goto(str(client.base_url))
    page.unroute(views)
    assert len(write(page, "the ", length="10")) > len("the ")


@pytest.mark.slow
def test_silent_worker_is_reported_and_texts_are_still_written(opened, growing: RunStore):
    with server_process(growing.root) as client:
        page = opened(client.base_url)
        with worker_process(growing) as worker:
            expect(page.locator("#live-title")).to_contain_text("is learning")
            expect(page.locator("#banner")).to_be_hidden()
            worker.kill()
        run = growing.get("growing")
        # as after a minute of silence
        run.write_status(run.status.model_copy(update={"heartbeat": time.time() - 60}))
        expect(page.locator("#banner")).to_contain_text(
            "The worker that trained growing has stopped answering"
        )
        write(page, "the ", length="30")


@pytest.mark.slow
def test_missing_worker_is_reported_with_the_command_to_start_it(opened, growing: RunStore):
    with server_process(growing.root) as client:
        page = opened(client.base_url)
        expect(page.locator("#live-title")).to_have_text("A network is about to read small.txt")
        expect(page.locator("#banner")).to_have_text(re.compile("No worker is running.*charloom worker"))
        with worker_process(growing):
            expect(page.locator("#banner")).to_be_hidden()
            expect(page.locator("#live-text")).not_to_be_empty()


@pytest.mark.slow
def test_missing_key_is_requested(opened, growing: RunStore):
    with server_process(growing.root, api_keys=KEYS) as client, worker_process(growing):
        page = opened(
            client.base_url,
            expected="40",
            http_credentials={"username": "rita", "password": "read-secret"},
        )
        go(page, "runs")
        pause = page.get_by_role("button", name="Pause growing", exact=True)
        pause.click()
        expect(page.locator("#key-why")).to_contain_text("right train")
        page.fill("#key-field", "not a key: ключ")
        page.keyboard.press("Enter")
        expect(page.locator("#key-why")).to_contain_text("unknown")
        page.fill("#key-field", "admin-secret")
        page.keyboard.press("Enter")
        expect(page.locator("#key")).to_be_hidden()
        # the request for events also has the key
        with page.expect_request(re.compile("/runs/.*/events")) as following:
            page.reload()
        assert following.value.headers["authorization"] == "Bearer admin-secret"
        pause.click()
        expect(page.locator("[data-run=growing] .state")).to_have_text("paused")
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
