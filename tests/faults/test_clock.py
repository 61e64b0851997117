"""A clock that is set forward and back while a worker trains and a server answers."""

from pathlib import Path

import pytest

from app.healthcheck import worker_fault
from app.store.run_store import RunStore
from app.training.trainer import train_run
from tests.support.runs import classic_like, outcome, patient_worker, small_text, stop, wait_until
from tests.support.servers import server_process

# makes the clock of a process jump by a day forward and back every few milliseconds
JUMPS = (
    "import time\nhonest = time.time\ntime.time = lambda: honest() + 86_400 * (int(honest() * 100) % 3 - 1)"
)
DAY_AHEAD = """
from app.training import trainer
honest = trainer.written_at
trainer.written_at = lambda path: honest(path) + 86_400
"""  # the clock of the volume


@pytest.mark.slow
def test_clock_jumps_change_only_reported_times(tmp_path: Path):
    config = classic_like(steps=400, sample_every=0)
    undisturbed = RunStore(tmp_path / "undisturbed").create("run", config, small_text(), "small.txt")
    assert train_run(undisturbed, lambda: False)
    store = RunStore(tmp_path / "jumping")
    run = store.create("run", config, small_text(), "small.txt")
    with patient_worker(store, setup=JUMPS) as worker:
        wait_until(lambda: run.status.state == "finished", "the run is finished")
        code, log = stop(worker)
    assert (code, "Traceback" in log) == (0, False), log
    assert outcome(run) == outcome(undisturbed)
    seconds = [point["seconds"] for point in run.history()]
    assert seconds == sorted(seconds)
    assert 0 < seconds[-1] < 80_000  # seconds of training, without the jumps of the clock


@pytest.mark.slow
def test_newest_run_is_served_after_the_volumes_clock_is_set_back(tmp_path: Path):
    store = RunStore(tmp_path / "checkpoints")
    config = classic_like(steps=40, sample_every=0)
    for name, setup in (("first", DAY_AHEAD), ("second", "")):
        run = store.create(name, config, small_text(), "small.txt")
        with patient_worker(store, setup=setup) as worker:
            wait_until(lambda run=run: run.status.state == "finished", "the run is finished")
            assert stop(worker)[0] == 0
    with server_process(store.root) as client:
        assert client.get("/readyz").json()["model"] == "second@40"
        assert "charloom_checkpoint_age_seconds" in client.get("/metrics").text
    assert worker_fault(store.root) is None
