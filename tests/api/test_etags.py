"""Unchanged content is not sent again, and content of another run never counts as unchanged."""

import os
import shutil

import httpx
import pytest

from app.store.records import RunSpec
from app.store.run_store import RunStore

CURVES = ("/loss-curve.json", "/loss-curve.svg", "/loss-curve.png")
EXPORT = "/runs/gru/export"


@pytest.mark.slow
@pytest.mark.parametrize("path", [*CURVES, "/gradcheck.svg?model=classic@0", EXPORT])
@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', '"a",W/"b", W/{}', "*"])
def test_etag_matches_strong_weak_listed_or_star(client: httpx.Client, path, form):
    first = client.get(path)
    again = client.get(path, headers={"if-none-match": form.format(first.headers["etag"])})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


@pytest.mark.parametrize("path", CURVES)
@pytest.mark.parametrize("form", ['"other"', "{}x", "", "W/"])
def test_other_etags_do_not_match(client: httpx.Client, path, form):
    tag = form.format(client.get(path).headers["etag"].strip('"'))
    assert client.get(path, headers={"if-none-match": tag}).status_code == 200


def test_etag_matches_in_any_line_of_the_header(client: httpx.Client):
    tag = client.get(CURVES[0]).headers["etag"]
    for tags in (['"other"', tag], [tag, '"other"']):
        answer = client.get(CURVES[0], headers=[("if-none-match", one) for one in tags])
        assert answer.status_code == 304


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "option", "values"),
    [
        ("/loss-curve.json", "points", (10, 2000)),
        ("/loss-curve.svg", "theme", ("light", "dark")),
        ("/loss-curve.png", "shape", ("wide", "narrow")),
        ("/gradcheck.svg?model=classic@0", "theme", ("light", "dark")),
        ("/gradcheck.png?model=classic@0", "shape", ("wide", "narrow")),
    ],
)
def test_answers_of_different_options_have_different_etags(client: httpx.Client, path, option, values):
    url = httpx.URL(path)
    tags = [client.get(url.copy_set_param(option, value)).headers["etag"] for value in values]
    assert tags[0] != tags[1]


def test_svg_and_png_have_different_etags(client: httpx.Client):
    paths = ("/loss-curve", "/gradcheck?model=classic@0")
    for path in paths:
        answers = [client.get(path, headers={"accept": kind}) for kind in ("image/svg+xml", "image/png")]
        tags = [answer.headers["etag"] for answer in answers]
        assert tags[0] != tags[1]
        answer = client.get(path, headers={"accept": "image/png", "if-none-match": tags[0]})
        assert answer.content.startswith(b"\x89PNG")


@pytest.mark.parametrize("path", [*CURVES, "/export"])
def test_recreated_run_has_another_etag(trained: RunStore, serving, path):
    """Name, step, state, points and checkpoints are the same; only the run is a different one."""
    client = serving(trained.root)
    url = EXPORT if path == "/export" else f"{path}?model=gru"
    tag = client.get(url).headers["etag"]
    before, record = trained.get("gru").path, "run.json"
    copy = before.with_name(".tmp-copy")
    shutil.copytree(before, copy)  # preserves the times of the files
    spec = RunSpec.read(copy / record)
    spec.model_copy(update={"created": spec.created + 1.0}).write(copy / record)
    times = (before / record).stat()
    os.utime(copy / record, ns=(times.st_atime_ns, times.st_mtime_ns))
    shutil.rmtree(before)
    copy.rename(before)
    answer = client.get(url, headers={"if-none-match": tag})
    assert answer.status_code == 200
    assert answer.headers["etag"] != tag


def test_export_keeps_its_etag_and_bytes_until_the_run_changes(trained: RunStore, serving):
    client = serving(trained.root)
    first, again = client.get(EXPORT), serving(trained.root).get(EXPORT)
    assert first.content == again.content
    for name in ("etag", "last-modified"):
        assert first.headers[name] == again.headers[name]
    shutil.copytree(trained.root, trained.root.with_name("copy"))  # other inodes
    for path in (trained.root.with_name("copy") / "gru").iterdir():
        path.touch()
    moved = serving(trained.root.with_name("copy")).get(EXPORT)
    assert (moved.headers["etag"], moved.content) == (first.headers["etag"], first.content)
    assert client.get(EXPORT, params={"text": True}).headers["etag"] != first.headers["etag"]
    assert client.get(EXPORT, params={"step": 20}).headers["etag"] != first.headers["etag"]
    with trained.get("gru").samples_path.open("ab") as file:
        file.write(b'{"step": 60, "kind": "sample", "text": "more"}\n')
    assert client.get(EXPORT).headers["etag"] != first.headers["etag"]
