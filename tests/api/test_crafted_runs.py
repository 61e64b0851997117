"""Runs and exports with an odd value that the program accepts: no list, route or command fails for them."""

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli import main
from app.intake.expectations import queue_of
from app.store.records import ENDED
from app.store.run_store import RunStore
from app.store.uploads import UploadedFile
from tests.support.crafted import (
    FILES,
    LISTS,
    OF_THE_RUN,
    PICTURES,
    Crafted,
    accepted,
    ask_every_command,
    checked,
    crafted,
    look_at,
    placed,
)
from tests.support.runs import small_text

GOOD = ("classic", "gru")
MOST_RUNS = 100  # in one store
DRAWN = ("history.jsonl", "baselines.json")
DRAWN_FIELDS = ("rollbacks", "overfitting_since", "step", "steps", "warnings", "state", "newest.step")


def stores(root: Path, file: str) -> Iterator[Mapping[str, Crafted]]:
    """Puts the crafted runs into the store, so many at a time; those of before are gone."""
    chosen = crafted(root / "gru", file)
    for begin in range(0, len(chosen), MOST_RUNS):
        made = placed(root, root / "gru", chosen[begin : begin + MOST_RUNS])
        yield made
        for name in made:
            for path in (root / name).iterdir():
                path.unlink()
            (root / name).rmdir()


def of_the_good(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [run | {"serving": None} for run in runs if run["name"] in GOOD]


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_odd_value_in_a_record_affects_no_other_run(
    trained: RunStore, serving: Callable[..., httpx.Client], file: str
):
    client, reported = serving(trained.root), set[str]()
    before = of_the_good(checked(client.get("/runs"), "before")["runs"])
    for made in stores(trained.root, file):
        for path in LISTS:
            checked(client.get(path), path)
        listed = checked(client.get("/runs"), "/runs")["runs"]
        assert of_the_good(listed) == before
        assert set(made) <= {run["name"] for run in listed}
        jobs = {job["id"] for job in checked(client.get("/v1/fine_tuning/jobs?limit=100"), "jobs")["data"]}
        assert {"ftjob-classic", "ftjob-gru"} <= jobs or len(jobs) == 100
        for name, one in made.items():
            for path in OF_THE_RUN:
                look_at(client, path.format(name), one.told)
            if one.field not in reported:
                reported.add(one.field)
                report = checked(client.get(f"/report?model={name}"), ("report", one.told))
                assert report.rstrip().endswith("</html>"), one.field
            if file in DRAWN or one.field in DRAWN_FIELDS:
                headers = {"accept": "text/html, image/svg+xml"}
                for path in PICTURES:
                    checked(client.get(path.format(name), headers=headers), (path, one.told))


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_odd_value_in_a_record_breaks_no_command(
    trained: RunStore, serving: Callable[..., httpx.Client], monkeypatch, capsys, file: str
):
    monkeypatch.setenv("CHARLOOM_URL", str(serving(trained.root).base_url))
    monkeypatch.setenv("CHARLOOM_STORE", str(trained.root))
    for made in stores(trained.root, file):
        runs = RunStore(trained.root)
        assert {run.name for run in runs.list()} == {*GOOD, *made}
        ask_every_command(trained.root, {name: one.told for name, one in made.items()})
        assert queue_of(runs).seconds < float("inf")
        for name, one in made.items():
            if runs.get(name).standing.state in ENDED:
                assert main(["runs", "watch", name]) in (0, 2), one.told
        said = capsys.readouterr()
        assert not set(said.out + said.err) & {"\x1b", "\x00"}


@pytest.mark.slow
@pytest.mark.parametrize("file", ["run.json", "history.jsonl", "samples.jsonl"])
def test_export_with_an_odd_value_is_refused_or_harmless(
    trained: RunStore, serving: Callable[..., httpx.Client], file: str
):
    client = serving(trained.root)
    with zipfile.ZipFile(io.BytesIO(client.get("/runs/gru/export").content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    taken = 0
    for one in crafted(trained.root / "gru", file):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in (members | {file: one.data}).items():
                archive.writestr(name, data)
        answer = client.post("/runs/import", params={"name": "bad"}, files={"file": content.getvalue()})
        checked(answer, one.told, (201, 422))
        if answer.status_code == 201:
            taken += 1
            for path in LISTS:
                checked(client.get(path), (path, one.told))
            for path in OF_THE_RUN:
                look_at(client, path.format("bad"), one.told)
            checked(client.delete("/runs/bad"), "delete")
    assert taken > 10


@pytest.mark.slow
def test_odd_value_in_the_record_of_a_file_breaks_no_list(
    trained: RunStore, serving: Callable[..., httpx.Client]
):
    client = serving(trained.root)
    content = {"file": ("small.txt", small_text())}
    first, second = (
        client.post("/v1/files", files=content, data={"purpose": "fine-tune"}).json()["id"] for _ in range(2)
    )
    path = trained.root / ".files" / first / "file.json"
    for one in accepted(UploadedFile, UploadedFile.read(path), path.name):
        path.write_bytes(one.data)
        listed = checked(client.get("/v1/files"), one.told)["data"]
        assert second in {file["id"] for file in listed}, one.told
        for address in (f"/v1/files/{first}", f"/v1/files/{first}/content"):
            look_at(client, address, one.told)
        job = client.post("/v1/fine_tuning/jobs", json={"model": "gru", "training_file": first})
        name = checked(job, one.told, (200, 400, 503))
        if job.status_code == 200:
            checked(client.delete(f"/runs/{name['id'].removeprefix('ftjob-')}"), "delete")
