"""Runs in a real browser: controlled, forked, exported, deleted and imported."""

import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from app.store.groups import add_members
from app.store.run_store import RunStore
from app.training.trainer import train_run
from tests.support.browser import NARROW, go
from tests.support.runs import gru_like, small_text, worker_process
from tests.support.servers import server_process


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "checkpoints")
    store.root.mkdir()
    return store


def press(page: Page, action: str, name: str) -> None:
    page.get_by_role("button", name=f"{action} {name}", exact=True).click()


def state(page: Page, name: str) -> Locator:
    return page.locator(f"[data-run='{name}'] .state")


@pytest.mark.slow
def test_run_is_paused_resumed_and_stopped_on_the_page(opened, store: RunStore):
    store.create("growing", gru_like(steps=1_000_000, checkpoint_every=500), small_text(), "small.txt")
    with server_process(store.root) as client, worker_process(store):
        page = opened(f"{client.base_url}#runs")
        expect(state(page, "growing")).to_contain_text("learning")
        press(page, "Pause", "growing")
        expect(state(page, "growing")).to_have_text("paused")
        press(page, "Resume", "growing")
        expect(state(page, "growing")).to_contain_text("learning")
        press(page, "Stop", "growing")
        expect(state(page, "growing")).to_have_text("stopped")
        assert client.get("/runs/growing").json()["state"] == "stopped"
        press(page, "Watch", "growing")
        expect(page.locator("#live-title")).to_have_text("This network learned to write from small.txt")
        assert page.url.endswith("#live?run=growing")


@pytest.mark.slow
def test_run_is_forked_exported_deleted_and_imported_again(opened, trained: RunStore, tmp_path):
    with server_process(trained.root) as client:
        page = opened(f"{client.base_url}#runs")
        press(page, "Fork", "gru")
        page.select_option("#fork-form [name=step]", "20")
        page.fill("#fork-form [name=name]", "again")
        page.fill("#fork-form [name=learning_rate]", "0.002")
        page.fill("#fork-form [name=amount]", "50")
        page.select_option("#fork-form [name=unit]", "steps")
        page.locator("#fork-form [type=submit]").click()
        expect(page.locator("#runs-made")).to_contain_text("again is queued")
        expect(page.locator("[data-run=again]")).to_contain_text("forked from gru@20")
        assert trained.get("again").config.learning_rate == 0.002
        with page.expect_download() as downloading:
            press(page, "Export", "gru")
        exported = tmp_path / downloading.value.suggested_filename
        downloading.value.save_as(exported)
        for name in ("again", "classic"):
            press(page, "Delete", name)
            page.fill("#delete-name", name)
            page.click("#delete-yes")
            expect(page.locator(f"[data-run={name}]")).to_have_count(0)
        press(page, "Delete", "gru")
        page.click("#delete-no")
        press(page, "Delete", "gru")
        page.fill("#delete-name", "gr")
        expect(page.locator("#delete-yes")).to_be_disabled()
        page.fill("#delete-name", "gru")
        expect(page.locator("#delete-what")).to_contain_text("No other network can be served then")
        page.click("#delete-yes")
        expect(page.locator("#runs-empty")).to_be_visible()
        assert not client.get("/runs").json()["runs"]
        page.set_input_files("#runs-import", exported)
        expect(page.locator("#runs-made")).to_contain_text("Imported gru, after 60 updates")
        assert len(client.get("/runs").json()["runs"]) == 1


@pytest.mark.slow
def test_deleted_run_is_removed_from_the_page(opened, trained: RunStore):
    with server_process(trained.root) as client:
        page = opened(f"{client.base_url}#write?run=classic", expected="404")
        expect(page.locator("#write-form [name=model] option")).not_to_have_count(0)
        assert client.delete("/runs/classic").status_code == 200  # by another client
        page.click("#write-go")
        expect(page.locator("#write-made")).to_contain_text("deleted meanwhile")
        expect(page.locator("#run option:checked")).to_have_text("classic (deleted)")
        go(page, "runs")
        expect(page.locator("[data-run=classic]")).to_have_count(0)
        page.select_option("#run", "gru")
        go(page, "write")
        expect(page.locator("#write-form [name=model]")).to_have_value("gru")


@pytest.mark.slow
def test_waiting_run_shows_its_position_in_the_queue(opened, store: RunStore):
    for name in ("first", "second", "third"):
        store.create(name, gru_like(steps=1_000_000), small_text(), "small.txt")
    with server_process(store.root) as client:
        page = opened(f"{client.base_url}#runs")
        for place, name in enumerate(("first", "second", "third"), 1):
            expect(state(page, name)).to_have_text(f"number {place} in the queue, waits for a worker")
        press(page, "Move to front", "third")
        for place, name in enumerate(("third", "first", "second"), 1):
            expect(state(page, name)).to_have_text(f"number {place} in the queue, waits for a worker")


@pytest.mark.slow
def test_every_waiting_run_shows_when_it_starts(opened, store: RunStore):
    for name in ("first", "second", "third"):
        store.create(name, gru_like(steps=0, minutes=20), small_text(), "small.txt")
    with server_process(store.root) as client, worker_process(store):
        page = opened(f"{client.base_url}#runs")
        expect(state(page, "first")).to_contain_text("learning")
        expect(state(page, "second")).to_have_text(
            re.compile(r"number 1 in the queue, starts in about (19|20) min")
        )
        expect(state(page, "third")).to_have_text(
            re.compile(r"number 2 in the queue, starts in about (39|40) min")
        )


@pytest.mark.slow
def test_only_checkpoints_of_the_chosen_run_are_listed(client, opened):
    page = opened(f"{client.base_url}#write?run=classic")
    options = page.locator("#write-form [name=model] option")
    expect(options.first).to_have_text("newest (60)")
    values = [option.get_attribute("value") for option in options.all()]
    assert {value.split("@")[0] for value in values} == {"classic"}
    steps = page.locator("#write-form [name=model] optgroup[label=Steps] option")
    checkpoints = client.get("/runs/classic").json()["checkpoints"]
    listed = [option.get_attribute("value") for option in steps.all()]
    assert listed == [f"classic@{step}" for step in reversed(checkpoints)]
    assert set(values) - set(listed) <= {"classic", "classic@best"}
    page.select_option("#run", "gru")
    expect(options.first).to_have_attribute("value", "gru")


@pytest.mark.slow
def test_32_runs_fit_a_narrow_window(opened, trained: RunStore):
    for index in range(30):
        trained.create(f"{index}-{'n' * 50}", gru_like(), small_text(), "small.txt")
    with server_process(trained.root) as client:
        page = opened(f"{client.base_url}#curves?run=gru", viewport=NARROW)
        expect(page.locator("#curves-chart canvas")).to_be_visible()
        expect(page.locator("#curves-runs label")).to_have_count(32)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
        assert page.locator("#curves-runs").evaluate("list => list.scrollWidth <= list.clientWidth")
        go(page, "runs")
        expect(page.locator("[data-run]")).to_have_count(32)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


@pytest.mark.slow
def test_run_is_opened_in_write_and_as_a_report(client, opened):
    page = opened(f"{client.base_url}#runs")
    press(page, "Write", "classic")
    expect(page.locator("#write-title")).to_be_visible()
    assert page.url.endswith("#write?run=classic")
    go(page, "runs")
    press(page, "Report", "classic")
    expect(page).to_have_url(f"{client.base_url}/report?model=classic")


@pytest.mark.slow
def test_time_left_does_not_depend_on_the_clock_of_the_worker(opened, store: RunStore):
    run = store.create("run", gru_like(), small_text(), "small.txt")
    an_hour_ago = time.time() - 3600
    with store.holding("run") as held, server_process(store.root) as client:
        status = {"state": "training", "heartbeat": an_hour_ago, "expected_end": an_hour_ago + 42}
        held.write_status(run.status.model_copy(update=status))
        page = opened(f"{client.base_url}#runs")
        expect(page.locator("[data-run=run]")).to_contain_text("42 s left")


@pytest.mark.slow
def test_group_trained_apart_is_shown_as_one_run(opened, store: RunStore):
    config = gru_like(members=2, steps=20, sample_every=0, best_sample_length=0)
    add_members(store, store.create("group", config, small_text(), "small.txt", apart=True))
    train_run(store.get("group.1"), lambda: False)
    with server_process(store.root) as client:
        page = opened(f"{client.base_url}#runs")
        group = page.locator("[data-run=group]")
        expect(group).to_contain_text("1 of 2 separately trained members are finished")
        expect(page.locator("[data-run]")).to_have_count(1)
        train_run(store.get("group.2"), lambda: False)
        train_run(store.get("group"), lambda: False)
        expect(group).to_contain_text("2 of 2 separately trained members")
        expect(page.get_by_role("button", name="Write group", exact=True)).to_be_visible()
        assert client.delete("/runs/group?force=true").status_code == 200
        expect(page.locator("[data-run]")).to_have_count(0)
