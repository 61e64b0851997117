"""/gradcheck: a real check in a real process, once for all who ask, and bounded in time."""

import asyncio
import os
import sys
from pathlib import Path

import httpx
import pytest

from app.engine.models import ModelStore
from app.errors import DeadlineError, DrainingError, OverloadedError, RenderError
from app.reports import gradchecks
from app.reports.gradchecks import GradientChecks
from app.store.run_store import RunStore
from model.gradcheck import ASSIGNMENT_FIGURES
from tests.support.runs import small_text

NAMES = ["layer0.U", "layer0.W", "layer0.b", "V", "c", "initial state"]


def checks(root: Path, seconds: float = 60, corpus: Path = Path("none.txt")) -> GradientChecks:
    models = ModelStore(RunStore(root))
    models.refresh()
    return GradientChecks(models, corpus, seconds)


def test_the_assignments_network_is_within_its_bars(client: httpx.Client):
    report = client.get("/gradcheck").json()
    assert (report["model"], report["method"], report["step_size"]) == ("assignment", "centred", 1e-5)
    assert (report["cell"], report["hidden"], report["layers"], report["sequence_length"]) == (
        "elman",
        100,
        1,
        25,
    )
    assert report["vocabulary"] == len(set(small_text()))
    assert report["passed"] is True
    assert [row["name"] for row in report["parameters"]] == NAMES
    for row in report["parameters"]:
        assert row["passed"] is True
        assert row["relative_error"] < row["limit"]
        assert row["assignment_figure"] == ASSIGNMENT_FIGURES.get(row["name"])
        if row["assignment_figure"]:
            assert row["relative_error"] < row["assignment_figure"] / 10
    assert report["parameters"][1] | {"relative_error": 0} == {
        "name": "layer0.W",
        "shape": [100, 100],
        "relative_error": 0,
        "limit": pytest.approx(2.54e-8),
        "assignment_figure": 2.54e-7,
        "passed": True,
        "checked": 10_000,
    }


@pytest.mark.parametrize("model", ["classic", "gru@20"])
def test_a_checkpoint_is_checked_by_complex_step(client: httpx.Client, model):
    report = client.get("/gradcheck", params={"model": model, "method": "complex-step"}).json()
    assert report["model"] == client.post("/generate", json={"model": model, "length": 1}).json()["model"]
    assert report["passed"] is True
    for row in report["parameters"]:
        assert row["relative_error"] < row["limit"] == 1e-12
        assert row["assignment_figure"] is None
        assert 0 < row["checked"] <= gradchecks.ELEMENTS


@pytest.mark.parametrize(
    ("path", "accept", "start"),
    [
        ("/gradcheck", "image/png", b"\x89PNG"),
        ("/gradcheck", "image/svg+xml", b"<?xml"),
        ("/gradcheck.png", "*/*", b"\x89PNG"),
        ("/gradcheck.svg", "*/*", b"<?xml"),
        ("/gradcheck", "text/html", b"<!doctype html>"),
    ],
)
def test_the_check_is_also_a_picture_and_a_page(client: httpx.Client, path, accept, start):
    response = client.get(path, params={"model": "classic@0"}, headers={"accept": accept})
    assert response.status_code == 200
    assert response.content.startswith(start)


def test_a_check_is_made_once_for_all_who_ask(trained_root, monkeypatch):
    started = []
    original = GradientChecks._process

    async def counted(self, order):
        started.append(order)
        return await original(self, order)

    monkeypatch.setattr(GradientChecks, "_process", counted)

    async def scenario() -> None:
        service = checks(trained_root)
        model = service.models.get("classic@20")
        impatient = asyncio.create_task(service.report(model, "centred"))
        await asyncio.sleep(0)
        impatient.cancel()
        reports = await asyncio.gather(*(service.report(model, "centred") for _ in range(3)))
        assert all(report is reports[0] for report in reports)
        assert await service.report(model, "centred") is reports[0]
        assert await service.report(model, "complex-step") is not reports[0]

    asyncio.run(scenario())
    assert len(started) == 2


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.fixture
def endless(tmp_path, monkeypatch) -> pytest.MonkeyPatch:
    """Checks that never end by themselves."""
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\nexec sleep 1000\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    return monkeypatch


def test_a_check_that_takes_too_long_is_ended_and_can_be_tried_again(trained_root, endless):
    async def scenario() -> None:
        service = checks(trained_root, seconds=0.05)
        before = children()
        with pytest.raises(DeadlineError, match=r"longer than 0.05 s"):
            await service.report(None, "centred")
        assert children() == before
        service.seconds = 60
        endless.undo()
        assert (await service.report(service.models.get("classic@0"), "centred")).parameters

    asyncio.run(scenario())


def test_the_end_of_the_service_ends_a_check(trained_root, endless):
    async def scenario() -> None:
        service = checks(trained_root)
        before = children()
        waiting = asyncio.create_task(service.report(None, "centred"))
        while children() == before:
            await asyncio.sleep(0.01)
        await service.close()
        assert children() == before
        with pytest.raises(DrainingError):
            await waiting

    asyncio.run(scenario())


def test_only_so_many_checks_wait(trained_root, monkeypatch):
    monkeypatch.setattr(gradchecks, "WAITING", 1)

    async def scenario() -> None:
        service = checks(trained_root)
        first = asyncio.create_task(service.report(service.models.get("classic@0"), "centred"))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await service.report(service.models.get("classic@20"), "centred")
        await first

    asyncio.run(scenario())


def test_without_a_run_the_configured_text_is_used_and_without_that_the_reason_is_told(tmp_path):
    async def scenario() -> None:
        with pytest.raises(RenderError, match=r"no run yet, and no file none\.txt"):
            await checks(tmp_path / "empty").report(None, "centred")
        corpus = tmp_path / "text.txt"
        corpus.write_text("ab\n" * 20)
        report = await checks(tmp_path / "empty", corpus=corpus).report(None, "centred")
        assert report.vocabulary == 3

    asyncio.run(scenario())


def test_a_checkpoint_that_is_gone_says_so(trained: RunStore):
    async def scenario() -> None:
        service = checks(trained.root)
        model = service.models.get("classic@0")
        model.path.unlink()
        with pytest.raises(RenderError, match=r"step-000000000\.safetensors"):
            await service.report(model, "centred")

    asyncio.run(scenario())


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
@pytest.mark.parametrize("method", ["centred", "complex-step"])
def test_a_fresh_network_of_any_cell_is_right(client: httpx.Client, cell, method):
    report = client.get("/gradcheck", params={"cell": cell, "method": method}).json()
    assert (report["model"], report["cell"], report["layers"], report["hidden"]) == (cell, cell, 2, 20)
    assert report["passed"] is True
    assert len(report["parameters"]) == 9


def test_a_cell_and_a_model_are_not_checked_together(client: httpx.Client):
    answer = client.get("/gradcheck", params={"cell": "gru", "model": "gru"})
    assert answer.status_code == 422
    assert "together with model" in answer.json()["error"]["message"]
