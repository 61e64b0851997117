"""/gradcheck: real checks in a real process, shared by all clients and limited in time."""

import asyncio
import dataclasses
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from app.engine.models import ModelStore
from app.reports import gradchecks
from app.reports.gradchecks import GradientChecks
from app.store.run_store import RunStore
from model.gradcheck import ASSIGNMENT_FIGURES
from tests.support.runs import small_text

NAMES = ["layer0.W", "V", "layer0.U", "layer0.b", "c", "initial state"]  # in the assignment's order

HIDDEN = 12  # units of the runs in the tests; fresh networks have another size


def in_a_loop(scenario: Callable[[GradientChecks, ModelStore], Awaitable[None]], root: Path) -> None:
    """Run `scenario(checks, models)`, then end the helper process."""

    async def run() -> None:
        models = ModelStore(RunStore(root))
        models.refresh()
        service = GradientChecks(60)
        try:
            await scenario(service, models)
        finally:
            await service.helper.close()

    asyncio.run(run())


def test_network_of_the_assignment_is_within_its_limits(client: httpx.Client):
    report = client.get("/gradcheck").json()
    assert (report["model"], report["method"], report["step_size"]) == ("assignment", "centred", 1e-5)
    assert (report["cell"], report["hidden"], report["layers"], report["sequence_length"]) == (
        "elman",
        100,
        1,
        25,
    )
    assert report["vocabulary"] == 67 != len(set(small_text()))
    assert sum(row["checked"] for row in report["parameters"]) == 23_667
    assert report["passed"] is True
    assert [row["name"] for row in report["parameters"]] == NAMES
    for row in report["parameters"]:
        assert row["passed"] is True
        assert row["relative_error"] < row["limit"]
        assert row["assignment_figure"] == ASSIGNMENT_FIGURES.get(row["name"])
        if row["assignment_figure"]:
            assert row["relative_error"] < row["assignment_figure"] / 10
    assert report["parameters"][0] | {"relative_error": 0} == {
        "name": "layer0.W",
        "shape": [100, 100],
        "relative_error": 0,
        "limit": pytest.approx(2.54e-8),
        "assignment_figure": 2.54e-7,
        "passed": True,
        "checked": 10_000,
    }


@pytest.mark.slow
@pytest.mark.parametrize("model", ["classic", "gru@20"])
def test_checkpoint_is_checked_by_complex_step(client: httpx.Client, model):
    report = client.get("/gradcheck", params={"model": model, "method": "complex-step"}).json()
    assert report["model"] == client.post("/generate", json={"model": model, "length": 1}).json()["model"]
    assert (report["hidden"], report["passed"]) == (HIDDEN, True)
    for row in report["parameters"]:
        assert row["relative_error"] < row["limit"] == 1e-12
        assert row["assignment_figure"] is None
        assert 0 < row["checked"] <= gradchecks.ELEMENTS


@pytest.mark.slow
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
def test_check_is_also_served_as_a_picture_and_a_page(client: httpx.Client, path, accept, start):
    response = client.get(path, params={"model": "classic@0"}, headers={"accept": accept})
    assert response.status_code == 200
    assert response.content.startswith(start)


def test_repeated_check_is_answered_from_the_cache(trained_root: Path):
    async def scenario(service: GradientChecks, models: ModelStore) -> None:
        model = models.get("classic@20")
        reports = await asyncio.gather(*(service.report(model, "centred") for _ in range(3)))
        assert all(report is reports[0] for report in reports)
        assert await service.report(model, "centred") is reports[0]
        assert await service.report(model, "complex-step") is not reports[0]

    in_a_loop(scenario, trained_root)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [None, "gru"])
def test_fresh_network_needs_neither_run_nor_text(serving, tmp_path: Path, cell):
    client = serving(tmp_path / "empty")
    report = client.get("/gradcheck", params={"cell": cell} if cell else {}).json()
    assert (report["passed"], report["vocabulary"]) == (True, 67)


@pytest.mark.slow
def test_checkpoint_removed_before_its_check_is_checked(trained: RunStore):
    async def scenario(service: GradientChecks, models: ModelStore) -> None:
        model = models.get("gru@best")
        model.path.unlink()
        report = await service.report(model, "centred")
        assert (report.model, report.hidden, report.passed) == (model.id, HIDDEN, True)

    in_a_loop(scenario, trained.root)


def test_checkpoint_of_a_run_without_its_text_is_checked(trained: RunStore, serving):
    (trained.get("gru").path / "corpus.txt").unlink()
    report = serving(trained.root).get("/gradcheck", params={"model": "gru", "method": "complex-step"}).json()
    assert (report["hidden"], report["passed"]) == (HIDDEN, True)


@pytest.mark.slow
def test_checks_are_cached_by_digest_and_named_as_requested(trained: RunStore):
    async def scenario(service: GradientChecks, models: ModelStore) -> None:
        first, second = models.get("gru@0"), models.get("copy@0")
        assert first.digest == second.digest
        reports = [await service.report(model, "centred") for model in (first, second)]
        assert [report.model for report in reports] == ["gru@0", "copy@0"]
        assert reports[0].parameters is reports[1].parameters

    gru, copy = trained.get("gru").path, trained.root / "copy"
    shutil.copytree(gru, copy)
    record = (copy / "run.json").read_text().replace('"name": "gru"', '"name": "copy"')
    (copy / "run.json").write_text(record)
    in_a_loop(scenario, trained.root)


def test_long_sequences_are_checked_at_the_assignments_length(trained: RunStore):
    model = ModelStore(trained).get("gru")
    long = dataclasses.replace(model, config=model.config.replace(sequence_length=500))
    assert gradchecks.task_of(long, "centred").length == 25
    task = gradchecks.task_of(model, "centred")
    assert (task.length, task.network) == (12, model.network.config)
    assert task.parameters is model.network.flat


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
@pytest.mark.parametrize("method", ["centred", "complex-step"])
def test_check_of_a_fresh_network_of_any_cell_passes(client: httpx.Client, cell, method):
    report = client.get("/gradcheck", params={"cell": cell, "method": method}).json()
    assert (report["model"], report["cell"], report["layers"], report["hidden"]) == (cell, cell, 2, 20)
    assert report["passed"] is True
    assert len(report["parameters"]) == 9


def test_cell_together_with_a_model_is_refused(client: httpx.Client):
    answer = client.get("/gradcheck", params={"cell": "gru", "model": "gru"})
    assert answer.status_code == 422
    assert "together with model" in answer.json()["error"]["message"]
