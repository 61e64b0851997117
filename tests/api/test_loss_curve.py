"""/loss-curve as points, pictures and a page."""

import httpx
import pytest

from app.store import history
from app.store.run_store import RunStore
from tests.support.runs import wait_until

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "media_type", "start"),
    [
        ("*/*", "application/json", b"{"),
        ("application/json", "application/json", b"{"),
        (BROWSER, "text/html; charset=utf-8", b"<!doctype html>"),
        ("image/png", "image/png", b"\x89PNG"),
        ("image/svg+xml", "image/svg+xml", b"<?xml"),
    ],
)
def test_loss_curve_has_the_format_the_client_accepts(client: httpx.Client, accept, media_type, start):
    response = client.get("/loss-curve", headers={"accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"] == media_type
    assert response.content.startswith(start)
    assert response.headers["vary"] == "accept"


@pytest.mark.parametrize(
    ("path", "accept"),
    [("/loss-curve.png", "image/png"), ("/loss-curve.svg", "image/svg+xml"), ("/loss-curve.json", "*/*")],
)
def test_each_format_of_the_curve_has_its_own_url(client: httpx.Client, path, accept):
    assert client.get(path).content == client.get("/loss-curve", headers={"accept": accept}).content


def test_unknown_format_is_refused_with_the_known_ones(client: httpx.Client):
    response = client.get("/loss-curve", headers={"accept": "audio/mpeg"})
    assert (response.status_code, response.json()["error"]["code"]) == (406, "not_acceptable")
    assert "image/png" in response.json()["error"]["message"]


def test_points_of_the_curve_equal_the_history_of_the_run(client: httpx.Client, trained_root):
    run = RunStore(trained_root).get("classic")
    body = client.get("/loss-curve?model=classic").json()
    records = run.history()
    assert [point["step"] for point in body["points"]] == [record["step"] for record in records]
    for name in ("loss", "smooth_loss", "summed_smooth_loss", "seconds"):
        assert [point[name] for point in body["points"]] == [record[name] for record in records]
    assert body["recorded"] == len(records) == 61
    assert (body["run"], body["state"], body["step"], body["sequence_length"]) == (
        "classic",
        "finished",
        60,
        10,
    )
    assert body["best"][0] == run.latest().best.step
    assert body["checkpoints"] == list(run.checkpoints())


def test_curve_of_many_points_is_thinned(client: httpx.Client):
    body = client.get("/loss-curve?model=classic&points=20").json()
    assert len(body["points"]) <= 25
    assert body["recorded"] == 61


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/loss-curve.json", "/loss-curve.svg", "/loss-curve.png"])
def test_unchanged_curve_is_answered_with_304(client: httpx.Client, path):
    first = client.get(path)
    again = client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get(path, params={"model": "classic"}, headers={"if-none-match": first.headers["etag"]})
    assert other.status_code == 200


def test_theme_changes_the_picture_of_the_curve(client: httpx.Client):
    assert (
        client.get("/loss-curve.svg?theme=dark").content != client.get("/loss-curve.svg?theme=light").content
    )


def test_policy_of_a_picture_allows_only_styles(client: httpx.Client):
    policy = client.get("/loss-curve.svg").headers["content-security-policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; sandbox"


@pytest.mark.slow
def test_curve_grows_during_training(serving, trained: RunStore):
    client = serving(trained.root)
    first = client.get("/loss-curve.json").json()
    run = trained.get("gru")
    history.append(run.history_path, [run.history()[-1] | {"step": 70}])
    wait_until(lambda: client.get("/loss-curve.json").json()["points"][-1]["step"] == 70, "a point is added")
    assert client.get("/loss-curve.json").json()["version"] != first["version"]


@pytest.mark.slow
def test_run_without_points_has_a_picture(serving, trained: RunStore):
    trained.get("gru").history_path.unlink()
    client = serving(trained.root)
    assert client.get("/loss-curve.json").json()["points"] == []
    assert client.get("/loss-curve.png").content.startswith(b"\x89PNG")
    assert client.get("/loss-curve", headers={"accept": BROWSER}).status_code == 200


def test_page_of_the_curve_shows_the_held_out_loss_with_its_update(client, serving, trained: RunStore):
    run = trained.get("gru")
    assert "at update" not in client.get("/loss-curve", headers={"accept": BROWSER}).text
    history.append(run.history_path, [run.history()[-1] | {"step": 70, "validation_loss": None}])
    run.write_status(run.status.model_copy(update={"step": 70, "steps": 80}))
    assert "at update 60" in serving(trained.root).get("/loss-curve", headers={"accept": BROWSER}).text
