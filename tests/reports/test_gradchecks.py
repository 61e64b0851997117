"""/gradcheck: a real check in a real process, once for all who ask, and bounded in time."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.engine.models import ModelStore
from app.errors import RenderError
from app.reports import gradchecks
from app.reports.gradchecks import GradientChecks
from app.store.run_store import RunStore
from model.gradcheck import ASSIGNMENT_FIGURES
from tests.support.runs import small_text

NAMES = ["layer0.U", "layer0.W", "layer0.b", "V", "c", "initial state"]


def in_a_loop(scenario: Callable, root: Path, corpus: Path = Path("none.txt")) -> None:
    """Runs `scenario(checks)` and ends their helper."""

    async def run() -> None:
        models = ModelStore(RunStore(root))
        models.refresh()
        service = GradientChecks(models, corpus, 60)
        try:
            await scenario(service)
        finally:
            await service.helper.close()

    asyncio.run(run())


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


def test_a_check_is_made_once_and_kept(trained_root: Path):
    async def scenario(service: GradientChecks) -> None:
        model = service.models.get("classic@20")
        reports = await asyncio.gather(*(service.report(model, "centred") for _ in range(3)))
        assert all(report is reports[0] for report in reports)
        assert await service.report(model, "centred") is reports[0]
        assert await service.report(model, "complex-step") is not reports[0]

    in_a_loop(scenario, trained_root)


def test_without_a_run_and_without_a_text_the_check_says_what_is_missing(tmp_path: Path):
    async def scenario(service: GradientChecks) -> None:
        with pytest.raises(RenderError, match=r"no run yet, and no file none\.txt"):
            await service.report(None, "centred")

    in_a_loop(scenario, tmp_path / "empty")


def test_without_a_run_the_configured_text_is_used(tmp_path: Path):
    async def scenario(service: GradientChecks) -> None:
        assert (await service.report(None, "centred")).vocabulary == 3

    corpus = tmp_path / "text.txt"
    corpus.write_text("ab\n" * 20)
    in_a_loop(scenario, tmp_path / "empty", corpus)


def test_a_checkpoint_that_is_gone_says_so(trained: RunStore):
    async def scenario(service: GradientChecks) -> None:
        model = service.models.get("classic@0")
        model.path.unlink()
        with pytest.raises(RenderError, match=r"step-000000000\.safetensors"):
            await service.report(model, "centred")

    in_a_loop(scenario, trained.root)


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
