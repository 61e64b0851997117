"""A server forgets the runs that are deleted, whatever it was asked about them."""

import gc

import httpx
import pytest

from app.engine.loaded_model import LoadedModel
from app.store.loss_curves import Curve
from app.store.run import Run
from app.store.run_store import RunStore
from tests.support.crafted import OF_THE_RUN, PICTURES, look_at
from tests.support.runs import wait_until

NAME = "gone"


def of_the_deleted() -> list[object]:
    """What this process still holds of a run of that name."""
    gc.collect()
    held = [one for one in gc.get_objects() if isinstance(one, Run | LoadedModel | Curve)]
    return [one for one in held if NAME in (one.run if isinstance(one, LoadedModel | Curve) else one.name)]


@pytest.mark.slow
def test_nothing_of_a_deleted_run_stays_in_memory(trained: RunStore, serving):
    client: httpx.Client = serving(trained.root)
    export = client.get("/runs/gru/export?text=true").content
    assert client.post("/runs/import", params={"name": NAME}, files={"file": export}).status_code == 201
    for path in (*OF_THE_RUN, *PICTURES, "/report?model={}", "/gradcheck?model={}"):
        look_at(client, path.format(NAME), NAME)
    for path, body in (("/score", {"text": "the cat"}), ("/activations", {}), ("/generate", {"length": 5})):
        assert client.post(path, json=body | {"model": NAME}).status_code == 200, path
    kinds = {type(one) for one in of_the_deleted()}
    assert kinds == {Run, LoadedModel, Curve}  # or the rest would test nothing
    assert client.delete(f"/runs/{NAME}").status_code == 200
    assert client.get("/runs").status_code == 200
    assert client.get("/loss-curve.json").status_code == 200
    wait_until(lambda: of_the_deleted() == [], "all of it is forgotten")
