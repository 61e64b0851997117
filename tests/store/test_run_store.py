import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import RunExistsError, RunFileError, RunNameError, RunNotFoundError
from app.store.records import CheckpointEntry, Latest, Status
from app.store.run import Run
from app.store.run_store import RunStore
from model.config import PRESETS, RunConfig

CLASSIC = PRESETS["classic"]
ENTRY = CheckpointEntry(file="step-000000005.safetensors", step=5, digest="d", time=1.0)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "checkpoints")


@pytest.fixture
def run(store: RunStore) -> Run:
    return store.create("my-run", CLASSIC, "a text\nwith ä and 😀", "my.txt")


def test_run_is_complete_in_its_folder(store: RunStore, run: Run):
    again = RunStore(store.root).get("my-run")
    assert again.config == CLASSIC
    assert again.text() == "a text\nwith ä and 😀"
    assert (again.spec.corpus_name, again.spec.characters, again.spec.preset) == ("my.txt", 19, "classic")
    assert again.status == Status(state="queued", steps=CLASSIC.steps)
    assert (again.history(), again.samples(), again.checkpoints(), again.latest()) == ([], [], {}, None)


def test_written_records_are_read_back(run: Run):
    status = Status(state="training", step=5, steps=10, loss=1.5)
    latest = Latest(newest=ENTRY, best=ENTRY.model_copy(update={"loss": 1.25}))
    run.write_status(status)
    run.write_latest(latest)
    assert run.status == status
    assert run.latest() == latest


def test_queue_keeps_its_order_without_extra_files(store: RunStore):
    names = ["b", "a", "c"]
    for name in names:
        store.create(name, RunConfig(), "text", "t.txt")
    assert [run.name for run in RunStore(store.root).list()] == names
    assert sorted(os.listdir(store.root)) == [".queue.lock", "a", "b", "c"]


def test_existing_name_is_refused_and_its_run_unchanged(store: RunStore, run: Run):
    with pytest.raises(RunExistsError, match="'my-run' exists already"):
        store.create("my-run", CLASSIC, "other", "other.txt")
    assert run.text() == "a text\nwith ä and 😀"
    assert sorted(os.listdir(store.root)) == [".queue.lock", "my-run"]


def test_concurrent_creation_succeeds_once(store: RunStore):
    def create(index: int) -> bool:
        try:
            RunStore(store.root).create("same", CLASSIC, str(index), "t.txt")
        except RunExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1


def test_failed_creation_leaves_no_files(store: RunStore, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.store.run_store.write_atomic", full)
    with pytest.raises(OSError, match="No space"):
        store.create("my-run", CLASSIC, "text", "t.txt")
    assert os.listdir(store.root) == [".queue.lock"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", "A", "-a", ".a", "a" * 65, "a\n", "ä", "a\0"]
)
def test_name_that_leaves_the_store_is_refused(store: RunStore, name: str):
    with pytest.raises(RunNameError, match="is not a valid run name"):
        store.create(name, CLASSIC, "text", "t.txt")
    with pytest.raises(RunNameError):
        store.get(name)


@given(name=st.text(st.characters(codec="utf-8"), max_size=70))
def test_any_name_is_refused_or_is_one_folder_in_the_store(tmp_path_factory, name: str):
    store = RunStore(tmp_path_factory.mktemp("store"))
    try:
        run = store.create(name, CLASSIC, "text", "t.txt")
    except RunNameError:
        assert os.listdir(store.root) == []
    else:
        assert run.path.parent == store.root
        assert [run.name for run in store.list()] == [name]


def test_unknown_run_is_refused_with_the_existing_names(store: RunStore, run: Run):
    with pytest.raises(RunNotFoundError, match=r"no run named 'other'.*Runs: my-run"):
        store.get("other")


def test_symbolic_links_are_not_followed(store: RunStore, run: Run, tmp_path: Path):
    outside = tmp_path / "outside"
    run.path.rename(outside)
    run.path.symlink_to(outside)
    with pytest.raises(RunNotFoundError):
        RunStore(store.root).get("my-run")
    assert RunStore(store.root).list() == []
    run.path.unlink()
    outside.rename(run.path)

    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    checkpoint = run.checkpoint_path(5)
    checkpoint.symlink_to(secret)
    assert run.checkpoints() == {}
    (run.path / "corpus.txt").unlink()
    (run.path / "corpus.txt").symlink_to(secret)
    with pytest.raises(RunFileError, match="cannot be read"):
        run.text()


@pytest.mark.parametrize("file", ["/etc/passwd", "../x", "best.pkl", "step-1.safetensors", "corpus.txt"])
def test_latest_can_only_name_a_checkpoint_of_its_run(run: Run, file: str):
    latest = json.loads(Latest(newest=ENTRY).model_dump_json())
    latest["newest"]["file"] = file
    (run.path / "latest.json").write_text(json.dumps(latest))
    with pytest.raises(
        RunFileError, match=r"latest\.json is damaged or was not written by Charloom: newest\.file"
    ):
        run.latest()


def test_checkpoints_are_found_by_step(run: Run):
    for step in (10, 2, 123_456_789_012):
        run.checkpoint_path(step).touch()
    for name in ("step-1.safetensors", "step-000000007.refused", "best-000000002.safetensors", ".tmp-01"):
        (run.path / name).touch()
    assert list(run.checkpoints()) == [2, 10, 123_456_789_012]
    assert run.checkpoints()[10] == run.checkpoint_path(10)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged"),
        (b'{"format": 1, "name": "my-r', "damaged"),
        (b"\xff\xfe\x00", "damaged"),
        (b"[]", "damaged"),
        (b'{"format": 2, "name"', "damaged"),
        (b" " * (2 << 20), "limit"),
    ],
)
def test_damaged_run_is_refused_and_the_others_are_listed(
    store: RunStore, run: Run, caplog, content: bytes, reason: str
):
    store.create("other", CLASSIC, "text", "t.txt")
    (run.path / "run.json").write_bytes(content)
    fresh = RunStore(store.root)
    with pytest.raises(RunFileError, match=reason):
        fresh.get("my-run")
    assert [found.name for found in fresh.list()] == [found.name for found in fresh.list()] == ["other"]
    assert len([record for record in caplog.records if "my-run" in record.getMessage()]) == 1


def test_newer_format_or_config_out_of_range_is_refused(store: RunStore, run: Run):
    spec = json.loads((run.path / "run.json").read_text())
    for change, reason in [
        ({"format": 99}, "has format 99.*update Charloom"),
        ({"config": spec["config"] | {"hidden": 0}}, "hidden"),
    ]:
        (run.path / "run.json").write_text(json.dumps(spec | change))
        with pytest.raises(RunFileError, match=reason):
            RunStore(store.root).get("my-run")


def test_run_in_a_renamed_folder_is_refused(store: RunStore, run: Run):
    run.path.rename(store.root / "other")
    with pytest.raises(RunFileError, match="holds a run named 'my-run'"):
        RunStore(store.root).get("other")


def test_unrelated_folders_and_files_are_ignored(store: RunStore, run: Run):
    (store.root / "lost+found").mkdir()
    (store.root / "empty").mkdir()
    (store.root / "file").touch()
    assert [found.name for found in store.list()] == ["my-run"]
    with pytest.raises(RunNotFoundError, match=r"no run\.json"):
        store.get("empty")


def test_run_with_a_changed_text_is_refused(run: Run):
    (run.path / "corpus.txt").write_text("another text")
    with pytest.raises(RunFileError, match="is not the text of this run"):
        run.text()


def test_damaged_status_counts_as_queued_and_is_reported(run: Run):
    (run.path / "status.json").write_bytes(b'{"state": "trai')
    assert run.status.state == "queued"
    assert "damaged" in (run.status.reason or "")


def test_missing_store_is_empty_and_not_created(tmp_path: Path):
    store = RunStore(tmp_path / "none")
    assert store.list() == []
    with pytest.raises(RunNotFoundError, match="the store is empty"):
        store.get("run")
    assert not store.root.exists()


def test_listing_reads_each_run_once(store: RunStore, run: Run, monkeypatch):
    reads = []
    real = RunStore.__init__.__globals__["RunSpec"].read.__func__
    monkeypatch.setattr(
        "app.store.run_store.RunSpec.read",
        classmethod(lambda cls, path: (reads.append(path), real(cls, path))[1]),
    )
    fresh = RunStore(store.root)
    for _ in range(3):
        fresh.list()
    assert len(reads) == 1
    (run.path / "run.json").write_bytes(b"{}")  # a changed file must be read again
    assert fresh.list() == []
