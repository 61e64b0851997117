"""Runs with one odd value in one field of one record, made from a good run; and the routes that show runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from app.cli import main
from app.commands import doctor
from app.errors import RunFileError
from app.settings import Settings
from app.store.history import POINTS, SAMPLES, Lines
from app.store.records import Baselines, Control, Latest, Record, RunSpec, Status
from app.store.run_store import RunStore
from app.training.worker import Worker

TEXTS = ("", "../x\x1b[2J[/b]$\\frac{<script>é\u2028", "x" * 100_000)
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 10**12, 10**15, 10**50, 1e-320, 1e100, -1e100, 1e308, 10**400),
    *(
        *TEXTS,
        {},
        [[]],
        [1, 1, 10**11],
        ["x", "\x1b[2J"],
        {"x": 1.0},
        {"$\\frac{$": 1.0},
        "failed",
        "training",
    ),
)
RECORDS: dict[str, type[Record]] = {
    "run.json": RunSpec,
    "status.json": Status,
    "control.json": Control,
    "latest.json": Latest,
    "baselines.json": Baselines,
}
EMPTY = {"baselines.json": {"losses": {}}}  # what a record has that may be missing
LINES: dict[str, Lines] = {"history.jsonl": POINTS, "samples.jsonl": SAMPLES}
FILES = (*RECORDS, *LINES)
LISTS = (
    *("/", "/runs", "/loss-curve.json", "/loss-curve?points=10", "/samples", "/metrics", "/info", "/readyz"),
    *("/v1/models", "/v1/fine_tuning/jobs?limit=100", "/healthz"),
)
OF_THE_RUN = (
    *("/runs/{}", "/runs/{}/beginnings", "/runs/{}/passage", "/runs/{}/export", "/runs/{}/events"),
    *("/samples?model={}", "/loss-curve.json?model={}&points=10", "/v1/models/{}"),
    *("/v1/fine_tuning/jobs/ftjob-{}", "/v1/fine_tuning/jobs/ftjob-{}/events?limit=100"),
    *("/v1/fine_tuning/jobs/ftjob-{}/checkpoints", "/generate?model={}&length=5"),
)
PICTURES = ("/loss-curve.svg?model={}", "/loss-curve?model={}")


class Crafted(NamedTuple):
    """What one file of a run is replaced by; `field` is the path of the odd value in the record."""

    file: str
    field: str
    data: bytes

    @property
    def told(self) -> tuple[object, ...]:
        """What to say of it where it breaks something."""
        return self.file, self.field, self.data[-300:]


def changed(value: Any, path: tuple[str, ...], odd: Any) -> Any:
    """A copy of the JSON `value` with `odd` at a place in it."""
    return odd if not path else value | {path[0]: changed(value[path[0]], path[1:], odd)}


def places(value: Any) -> Iterator[tuple[str, ...]]:
    """The paths of all fields of a JSON object, those of objects in it as well."""
    for name, part in value.items():
        yield (name,)
        if isinstance(part, dict):
            yield from ((name, *path) for path in places(part))


def crafted(run: Path, file: str) -> list[Crafted]:
    """Each odd value in each field of a file of the run, where the program accepts the result."""
    if file in LINES:
        return list(_lines(run, file))
    written = json.loads((run / file).read_text()) if (run / file).exists() else EMPTY.get(file, {})
    found = accepted(RECORDS[file], RECORDS[file].model_validate(written), file)
    return [one for one in found if one.field != "name"]  # that of its folder


def accepted(kind: type[Record], record: Record, file: str) -> list[Crafted]:
    """Each odd value in each field of a record, where it can still be read."""
    whole = json.loads(record.model_dump_json())
    found = []
    for place in places(whole):
        for odd in ODD:
            data = json.dumps(changed(whole, place, odd)).encode()
            try:
                kind.parse(data, file)
            except RunFileError:
                continue
            found.append(Crafted(file, ".".join(place), data))
    return found


def _lines(run: Path, file: str) -> Iterator[Crafted]:
    """The same for a file of lines, with the value in every line; and once in a line in the middle."""
    lines = (run / file).read_bytes().splitlines()
    middle = len(lines) // 2
    for field in json.loads(lines[middle]):
        for odd in ODD:
            made = [json.dumps(json.loads(line) | {field: odd}).encode() for line in lines]
            if LINES[file].parse(made[middle]) is None:
                continue
            yield Crafted(file, field, b"\n".join([*made, b""]))
        single = [*lines[:middle], made[middle], *lines[middle + 1 :], b""]
        yield Crafted(file, field, b"\n".join(single))


def placed(root: Path, good: Path, chosen: list[Crafted]) -> Mapping[str, Crafted]:
    """A run for each of them next to the good one, by name."""
    made = {}
    for number, one in enumerate(chosen):
        name = f"bad-{number}"
        path = root / name
        path.mkdir()
        for file in good.iterdir():
            os.link(file, path / file.name)
        files = {one.file: one.data}
        spec = json.loads(files.get("run.json") or (good / "run.json").read_bytes())
        files["run.json"] = json.dumps(spec | {"name": name}).encode()
        for file, data in files.items():
            (path / file).unlink(missing_ok=True)  # the good run has the same file
            (path / file).write_bytes(data)
        made[name] = one
    return made


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def checked(answer: httpx.Response, about: object, statuses: tuple[int, ...] = (200,)) -> Any:
    """The answer's JSON, or its text, if it has one of the statuses."""
    assert answer.status_code in statuses, (about, answer.status_code, answer.text[:500])
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    return json.loads(answer.text, parse_constant=refuse) if is_json else answer.text


def look_at(client: httpx.Client, path: str, about: object) -> str:
    """Ask for something of one run: an answer, or an error about this run; of a stream only its beginning."""
    about = (path, about)
    with client.stream("GET", path) as answer:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return next(answer.iter_text(), "")
        answer.read()
    found = checked(answer, about, (200, 204, 404, 422, 503))
    if answer.status_code == 503:
        codes = ("run_unusable", "checkpoint_unusable", "not_ready", "store_unavailable")
        assert found["error"]["code"] in codes, about
    return str(found)


def ask_every_command(root: Path, told: Mapping[str, object]) -> None:
    """Checks, worker and commands on a store that the variables name; `told` says of each run what it is."""
    settings = Settings(store=root, corpus=root / "none.txt")
    for check in (doctor.store, doctor.checkpoints, doctor.worker, doctor.generation):
        assert check(settings).message
    Worker(RunStore(root), lambda: False).next_run()
    assert main(["runs", "list"]) == 0
    for name, about in told.items():
        for command in (["runs", "show", name], ["generate", "--model", name, "--length", "5"]):
            assert main(command) in (0, 2), (command, about)
