"""Curves in a real browser: they grow while a run trains, and continue after a restart of the server."""

import contextlib
import re
import socket

import pytest
from playwright.sync_api import Page, expect

from tests.support.runs import worker_process
from tests.support.servers import server_process


def steps(page: Page) -> int:
    """The number of updates that Curves shows."""
    found = re.search(r"([\d,]+) of [\d,]+ updates", page.locator("#curves-now").text_content() or "")
    return int(found[1].replace(",", "")) if found else -1


@pytest.mark.slow
def test_curve_grows_while_the_worker_trains(opened, growing):
    with server_process(growing.root) as client:
        page = opened(f"{client.base_url}#curves")
        expect(page.locator("#curves-empty")).to_be_visible()
        with worker_process(growing):
            expect(page.locator("#curves-chart canvas")).to_be_visible()
            expect(page.locator("#curves-now")).to_contain_text("growing · learning")
            last = page.locator("#curves-legend td").nth(1)
            expect(last).not_to_have_text(last.text_content() or "")


@pytest.mark.slow
def test_curve_continues_after_a_restart_of_the_server(opened, growing):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with contextlib.ExitStack() as server, worker_process(growing):
        client = server.enter_context(server_process(growing.root, at=port))
        page = opened(f"{client.base_url}#curves")
        asked = []
        page.on("request", lambda request: asked.append(request) if request.url.endswith("/events") else None)
        expect(page.locator("#curves-chart canvas")).to_be_visible()
        server.close()
        expect(page.locator("#banner")).to_contain_text("does not answer")
        before, count = steps(page), len(asked)
        with server_process(growing.root, at=port):
            expect(page.locator("#banner")).to_be_hidden()
            expect(page.locator("#curves-now")).not_to_contain_text(f"{before:,} of")
            assert steps(page) > before
            places = [request.headers.get("last-event-id") for request in asked[count:]]
            assert places
            assert all(re.fullmatch(r"\d+\.\d+\.\d+", place or "") for place in places)


@pytest.mark.slow
def test_run_is_followed_by_events_instead_of_polling(opened, growing):
    with server_process(growing.root) as client, worker_process(growing):
        page = opened(f"{client.base_url}#curves")
        expect(page.locator("#curves-chart canvas")).to_be_visible()
        client.patch("/runs/growing", json={"action": "pause"})  # no new checkpoints
        expect(page.locator("#curves-now")).to_contain_text("growing · paused")
        client.patch("/runs/growing", json={"action": "resume"})
        expect(page.locator("#curves-now")).to_contain_text("growing · learning")
        # the event stream alone updates the numbers, while no other request is answered
        page.route(re.compile(r"/runs$|/loss-curve|/samples"), lambda route: None)
        step = steps(page)
        page.wait_for_function(
            "before => Number(/([\\d,]+) of/.exec(document.getElementById('curves-now').textContent)[1]"
            ".replaceAll(',', '')) > before + 2",
            arg=step,
        )


@pytest.mark.slow
def test_smoothed_loss_in_the_legend_has_no_bias(client, opened):
    page = opened(f"{client.base_url}#curves?run=classic")
    rows = page.locator("#curves-legend tr")
    expect(rows.first).to_contain_text("loss")
    expect(page.locator("#curves-legend")).to_contain_text("smooth")
    recorded = page.locator("#curves-legend tr", has_text="smooth").locator("td").first.text_content()
    page.locator("#curves-smoothing").fill("0.5")
    expect(page.locator("#curves-smoothing-value")).to_have_text("0.50")
    losses = [
        point["loss"] for point in client.get("/loss-curve.json?model=classic&points=800").json()["points"]
    ]
    weights = [0.5 ** (len(losses) - index) for index, loss in enumerate(losses) if loss is not None]
    known = [loss for loss in losses if loss is not None]
    mean = sum(w * loss for w, loss in zip(weights, known, strict=True)) / sum(weights)
    shown = page.locator("#curves-legend tr", has_text="smooth").locator("td").first
    expect(shown).to_have_text(f"{mean:.3f}")
    assert recorded != f"{mean:.3f}"


@pytest.mark.slow
def test_curves_are_saved_as_csv(client, opened, tmp_path):
    page = opened(f"{client.base_url}#curves?run=classic")
    with page.expect_download() as downloading:
        page.click("#curves-csv")
    downloading.value.save_as(tmp_path / "curves.csv")
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    points = client.get("/loss-curve.json?model=classic&points=100000").json()["points"]
    assert lines[0].startswith("run,step,seconds,loss")
    assert len(lines) == 1 + len(points)
    assert lines[-1].startswith(f"classic,{points[-1]['step']},")
