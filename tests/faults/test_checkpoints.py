"""Bad checkpoint files: each is refused with name and reason, and the last good one stays in service."""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from safetensors.numpy import save as save_tensors

from app.store.records import Latest
from app.store.run import Run
from app.store.run_store import RunStore
from model import checkpoint as checkpoints
from model.checkpoint import Checkpoint, encode, load
from model.vocabulary import Vocabulary
from tests.support.runs import stop, wait_until, worker_process
from tests.support.stores import announce, refreshed


@dataclass
class Bad:
    """Makes a bad checkpoint from a good one; `reason` is the reason that must be reported."""

    make: Callable[[Checkpoint, bytes], bytes]
    reason: str


def forged(checkpoint: Checkpoint, **changes: object) -> bytes:
    """A checkpoint with changed metadata and a matching checksum."""
    data = encode(checkpoint)
    described = json.loads(checkpoints._metadata(data, "").partition(" ")[2]) | changes
    tensors = checkpoints.load_tensors(data)
    text = json.dumps(described)
    return save_tensors(tensors, metadata={"charloom": f"{checkpoints._digest(text, tensors)} {text}"})


def wrong_shape(checkpoint: Checkpoint, data: bytes) -> bytes:
    return forged(checkpoint, config=checkpoint.config.replace(hidden=13).to_dict())


def wrong_vocabulary(checkpoint: Checkpoint, data: bytes) -> bytes:
    return forged(checkpoint, vocabulary=checkpoint.vocabulary.characters[:-1])


def not_finite(checkpoint: Checkpoint, data: bytes) -> bytes:
    checkpoint.parameters[3] = np.nan
    return encode(checkpoint)


def flipped(checkpoint: Checkpoint, data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


BAD = {
    "torn": Bad(lambda _, data: data[: len(data) // 2], "is truncated or damaged"),
    "truncated by one byte": Bad(lambda _, data: data[:-1], "is truncated or damaged"),
    "one byte": Bad(lambda _, data: b"\n", "is not a safetensors file"),
    "one bit flipped": Bad(flipped, "does not match its own checksum"),
    "wrong shape": Bad(wrong_shape, r"U has shape .*, its configuration says"),
    "wrong vocabulary": Bad(wrong_vocabulary, r"has shape .*, its configuration says"),
    "values that are not finite": Bad(not_finite, "holds values that are not finite"),
    "newer format": Bad(
        lambda checkpoint, _: forged(checkpoint, version=checkpoints.VERSION + 1),
        f"has format version {checkpoints.VERSION + 1}.*: upgrade Charloom",
    ),
    "foreign": Bad(lambda _, data: b"\x80\x04pickle" * 99, "is not a safetensors file"),
    "another program's": Bad(
        lambda _, data: save_tensors({"w": np.zeros(3)}),
        "is a safetensors file, but not a Charloom checkpoint",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD)
def test_bad_checkpoint_is_refused_and_the_last_good_one_served(
    serving, trained: RunStore, caplog, kind: str
):
    client = serving(trained.root)
    run = trained.get("gru")
    good = load(run.checkpoint_path(60))
    good.step = 70
    announce(run, 70, BAD[kind].make(good, run.checkpoint_path(60).read_bytes()))
    metric = 'charloom_checkpoint_reload_total{result="refused"} 1.0'
    with caplog.at_level(logging.ERROR):
        wait_until(lambda: metric in client.get("/metrics").text, "the checkpoint is refused")
    [line] = [r.message for r in caplog.records if "refused" in r.message]
    assert line.startswith("checkpoint step-000000070.safetensors of run gru refused: ")
    assert re.search(BAD[kind].reason, line)
    answer = client.post("/generate", json={"length": 20, "seed": 1}).raise_for_status().json()
    assert answer["model"] == "gru@60"
    named = client.post("/generate", json={"length": 20, "seed": 1, "model": "gru"}).raise_for_status()
    assert named.json()["text"] == answer["text"]
    asked = client.post("/generate", json={"length": 20, "model": "gru@70"})
    assert (asked.status_code, asked.json()["error"]["code"]) == (503, "checkpoint_unusable")


def test_store_with_bad_newest_checkpoints_serves_the_best_one(trained: RunStore):
    run = trained.get("gru")
    for step, path in run.checkpoints().items():
        if step > 20:
            path.write_bytes(b"damaged")
    models = refreshed(trained)
    assert (models.current.id, models.get("gru").id) == ("gru@20", "gru@20")


def test_run_with_a_bad_newest_checkpoint_uses_the_previous_one(trained: RunStore):
    models = refreshed(trained)
    run = trained.get("classic")
    announce(run, 70, b"torn", time=1.0)
    for _ in range(3):
        assert models.get("classic").id == "classic@60"
    assert models.refusals == 1
    assert models.last_refusal is not None
    assert models.last_refusal.file == "step-000000070.safetensors"


def remove(run: Run) -> None:
    (run.path / "latest.json").unlink()


def point_at_nothing(run: Run) -> None:
    latest = run.latest()
    assert latest is not None
    gone = latest.newest.model_copy(update={"file": "step-000000099.safetensors", "digest": "0" * 64})
    run.write_latest(Latest(newest=gone))


def point_outside(run: Run) -> None:
    text = (run.path / "latest.json").read_text()
    (run.path / "latest.json").write_text(text.replace("step-000000060", "../classic/step-000000060"))


@pytest.mark.slow
@pytest.mark.parametrize("fault", [remove, point_at_nothing, point_outside])
def test_newest_file_is_used_without_a_valid_latest_json(serving, trained: RunStore, fault):
    for run in trained.list():
        fault(run)
    client = serving(trained.root)
    assert client.get("/readyz").json()["model"] == "gru@60"
    assert client.post("/generate", json={"length": 5, "model": "classic"}).json()["model"] == "classic@60"
    assert client.post("/generate", json={"length": 5, "model": "gru@20"}).json()["model"] == "gru@20"


@pytest.mark.slow
@pytest.mark.parametrize("fault", [remove, point_at_nothing, point_outside])
def test_worker_repairs_latest_json(trained: RunStore, fault):
    run = trained.get("gru")
    run.write_status(run.status.model_copy(update={"state": "queued"}))
    fault(run)
    with worker_process(trained) as worker:
        wait_until(lambda: run.status.state == "finished", "the run is finished again")
        code, log = stop(worker)
    assert code == 0, log
    latest = run.latest()
    assert latest is not None
    assert load(run.path / latest.newest.file).digest == latest.newest.digest


@pytest.mark.slow
def test_checkpoint_with_another_vocabulary_is_not_continued(trained: RunStore):
    """The worker also refuses a valid checkpoint of another text, and continues from the one before."""
    run = trained.get("gru")
    run.write_status(run.status.model_copy(update={"state": "queued"}))
    checkpoint = load(run.checkpoint_path(60))
    characters = checkpoint.vocabulary.characters
    checkpoint.vocabulary = Vocabulary(sorted([*characters[:-1], "€"]))
    checkpoint.text_sha256 = "0" * 64
    run.checkpoint_path(60).write_bytes(encode(checkpoint))
    with worker_process(trained) as worker:
        wait_until(lambda: run.status.state == "finished", "the run is finished again")
        _, log = stop(worker)
    assert "belongs to another run: its settings or its text differ" in log
    assert load(run.checkpoint_path(60)).vocabulary.characters == characters
