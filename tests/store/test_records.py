"""Invalid numbers and other JSON in records are refused, when they are read and when they are written."""

import json
import math
import time
from pathlib import Path

import pytest

from app.errors import RunFileError
from app.store.control import ask
from app.store.records import MAX_COUNT, MAX_TIME, CheckpointEntry, Control, Latest, RunSpec, Status
from app.store.run_store import RunStore
from app.training.trainer import train_run
from tests.support.runs import classic_like, small_text
from tests.support.stores import refreshed

ENTRY = {"file": "step-000000060.safetensors", "step": 60, "digest": "ab", "time": 1.0, "loss": 1.0}
SPEC = {
    "name": "run",
    "config": classic_like().to_dict(),
    "corpus_name": "x.txt",
    "corpus_sha256": "ab",
    "characters": 100,
    "position": 1,
    "created": 1.0,
}
RECORDS = {
    "status": (
        Status,
        {"state": "failed", "rollbacks": [1]},
        ("step", "steps", "fraction", "heartbeat", "seconds"),
    ),
    "times": (Status, {}, ("retry_at", "expected_end", "characters_per_second", "validation_step")),
    "spec": (RunSpec, SPEC, ("characters", "position", "created", "format")),
    "control": (Control, {}, ("asked", "answers", "priority")),
}
ODD = (
    "-1",
    "1e308",
    "1e400",
    "Infinity",
    "NaN",
    "9" * 400,
    "9" * 5000,
    '"x"',
    "[]",
    "{}",
    "[" * 5000 + "]" * 5000,
)


@pytest.mark.parametrize("value", ODD, ids=lambda value: value[:9])
@pytest.mark.parametrize("kind", RECORDS)
def test_invalid_numbers_in_a_record_are_refused(tmp_path: Path, kind: str, value: str):
    record, known, fields = RECORDS[kind]
    path = tmp_path / "record.json"
    for field in fields:
        path.write_text(json.dumps(known | {field: "HERE"}).replace('"HERE"', value))
        if (field, value) == ("priority", "-1"):
            record.read(path)
            continue
        with pytest.raises(RunFileError, match="is damaged or was not written by Charloom") as raised:
            record.read(path)
        assert len(str(raised.value)) < 1000
        assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize("value", ODD, ids=lambda value: value[:9])
@pytest.mark.parametrize("field", ["step", "time"])
def test_invalid_numbers_of_a_checkpoint_entry_are_refused(tmp_path: Path, field: str, value: str):
    path = tmp_path / "latest.json"
    path.write_text(json.dumps({"newest": ENTRY | {field: "HERE"}}).replace('"HERE"', value))
    with pytest.raises(RunFileError):
        Latest.read(path)


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"format": 0}', b'{"a": "\\ud800']
)
def test_record_with_invalid_content_is_refused(tmp_path: Path, data: bytes):
    (tmp_path / "status.json").write_bytes(data)
    with pytest.raises(RunFileError):
        Status.read(tmp_path / "status.json")


def test_any_error_of_the_parser_refuses_the_record(monkeypatch):
    def fail(data: bytes) -> Status:
        raise RecursionError("too deep")

    monkeypatch.setattr(Status, "model_validate_json", fail)
    with pytest.raises(RunFileError, match=r"x/status\.json is damaged .*: too deep"):
        Status.parse(b"{}", "x/status.json")


def test_record_that_could_not_be_read_back_is_not_written(tmp_path: Path):
    path = tmp_path / "status.json"
    Status(state="training").write(path)
    before = path.read_bytes()
    for changes in ({"step": -1}, {"seconds": math.inf}, {"reason": "x" * (1 << 20)}):
        with pytest.raises(RunFileError):
            Status().model_copy(update=changes).write(path)
    assert path.read_bytes() == before


def test_time_in_the_far_future_does_not_affect_later_runs(trained: RunStore):
    """Earlier versions accepted an import with such a time."""
    for name, at in (("classic", MAX_TIME), ("gru", 1.797e308)):
        path = trained.root / name / "latest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"newest": ENTRY | {"time": at}}))
    run = trained.create("new", classic_like(), small_text(), "small.txt")
    train_run(run, lambda: False)
    assert run.latest().newest.time == MAX_TIME
    assert trained.get("gru").usable_latest() is None
    path = trained.root / "classic" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"position": MAX_COUNT}))
    other = RunStore(trained.root).create("other", classic_like(), small_text(), "small.txt")
    assert RunStore(trained.root).get("other").spec == other.spec


def test_imported_checkpoint_is_default_only_as_the_only_one(trained: RunStore):
    newest = trained.get("classic").latest().newest
    changed = newest.model_copy(update={"time": time.time() + 1e6, "imported": True})
    trained.get("classic").write_latest(Latest(newest=changed))
    assert refreshed(trained).current.run == "gru"
    assert trained.last_trained() < time.time() + 1e5
    entry = trained.get("gru").latest().newest.model_copy(update={"imported": True})
    trained.get("gru").write_latest(Latest(newest=entry))
    assert refreshed(trained).current.run == "classic"


@pytest.mark.parametrize("ahead", [-86_400.0, 0.0, 86_400.0], ids=["behind", "equal", "ahead"])
def test_resume_does_not_depend_on_the_clocks(tmp_path: Path, monkeypatch, ahead: float):
    """The clock of the worker may be ahead of that of the server, or behind it."""
    run = RunStore(tmp_path).create("run", classic_like(), small_text(), "small.txt")
    run.write_status(Status(state="failed", heartbeat=time.time() + ahead))
    assert ask(RunStore(tmp_path), run, "train", None).state == "queued"
    run.write_status(Status(state="failed", heartbeat=time.time() + ahead + 1))  # tried, and failed again
    assert run.standing.state == "failed"
    assert ask(RunStore(tmp_path), run, "train", None).state == "queued"


def test_resume_requested_by_an_earlier_version_is_applied():
    status = Status(state="failed", heartbeat=10.0)
    assert Control(wanted="train", asked=11.0).applied_to(status).state == "queued"
    assert Control(wanted="train", asked=9.0).applied_to(status).state == "failed"


def test_entry_of_an_earlier_version_counts_as_not_imported():
    assert not CheckpointEntry.model_validate(ENTRY).imported
