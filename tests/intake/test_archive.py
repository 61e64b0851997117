"""Imports refuse invalid archives with the reason and in bounded memory; exports are imported unchanged."""

import io
import json
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import InvalidRequestError, TooLargeError
from app.intake.archive import export, import_run
from app.store.history import POINTS
from app.store.run_store import RunStore
from app.store.space import Budget, Limits
from tests.support.stores import refreshed

LIMIT = 64_000_000


def limits(store: RunStore) -> Limits:
    return Limits(LIMIT, 100, Budget(store, 0))


@pytest.fixture
def members(trained: RunStore, tmp_path: Path) -> dict[str, bytes]:
    """The files of an export of `classic` that includes its text."""
    export(trained.get("classic"), None, True, tmp_path / "classic.zip")
    with zipfile.ZipFile(tmp_path / "classic.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def import_zip(store: RunStore, data: bytes) -> None:
    import_run(store, {"name": "again"}, io.BytesIO(data), limits(store))


def changed(name: str, **changes: object) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda members: members | {name: json.dumps(json.loads(members[name]) | changes).encode()}


def line(name: str, text: bytes) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    def add(members: dict[str, bytes]) -> dict[str, bytes]:
        first, _, rest = members[name].partition(b"\n")
        return members | {name: first + b"\n" + text + b"\n" + rest}

    return add


REFUSED = {
    "created": (changed("run.json", created=1.797e308), "created"),
    "no characters": (changed("run.json", characters=0), "characters"),
    "too few characters": (changed("run.json", characters=3), "Given: 3"),
    "other length": (changed("run.json", characters=3999), "corpus.txt is not the text"),
    "400 digits": (changed("run.json", position=10**400), "position"),
    "other text": (lambda members: members | {"corpus.txt": b"x" * 4000}, "corpus.txt is not the text"),
    "a point without a step": (line("history.jsonl", b'{"loss": 1.0}'), r"history.jsonl: line 2"),
    "a point that is a list": (line("history.jsonl", b"[]"), r"history.jsonl: line 2"),
    "an infinite loss": (line("history.jsonl", b'{"step": 1, "loss": Infinity}'), r"history.jsonl: line 2"),
    "a sample without a text": (
        line("samples.jsonl", b'{"step": 1, "kind": "sample"}'),
        "samples.jsonl: line 2",
    ),
    "a sample with a surrogate": (
        line("samples.jsonl", b'{"step": 1, "kind": "sample", "text": "\\ud800"}'),
        r"samples.jsonl: line 2",
    ),
    "deep": (line("samples.jsonl", b"[" * 90_000), r"samples.jsonl: line 2"),
    "no record": (lambda members: {"model.safetensors": members["model.safetensors"]}, r"no run.json"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_modified_export_is_refused_with_the_reason(trained: RunStore, members, kind: str):
    change, reason = REFUSED[kind]
    with pytest.raises(InvalidRequestError, match=reason) as raised:
        import_zip(trained, zipped(change(members)))
    assert len(str(raised.value)) < 1000
    assert str(trained.root) not in str(raised.value)
    assert ".tmp-" not in str(raised.value)
    assert [run.name for run in trained.list()] == ["classic", "gru"]


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_methods_are_refused(trained: RunStore, members, compression: int):
    with pytest.raises(InvalidRequestError, match="neither stored nor deflated"):
        import_zip(trained, zipped(members, compression))


@pytest.mark.parametrize("name", ["model.safetensors", "history.jsonl"])
def test_zip_with_a_damaged_member_is_refused(trained: RunStore, members, name: str):
    data = bytearray(zipped(members))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry = archive.getinfo(name)
    for offset in range(entry.header_offset + 100, entry.header_offset + entry.compress_size, 97):
        damaged = data.copy()
        damaged[offset] ^= 0xFF
        with pytest.raises(InvalidRequestError):
            import_zip(trained, bytes(damaged))


def peak(work: Callable[[], object]) -> tuple[int, float]:
    """Peak memory of Python objects in bytes, and duration in seconds."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises((InvalidRequestError, TooLargeError)):
            work()
        return tracemalloc.get_traced_memory()[1], time.monotonic() - began
    finally:
        tracemalloc.stop()


def test_zip_bomb_is_refused_with_little_memory_and_time(trained: RunStore, members):
    header = b'{"__metadata__":[' + b"[]," * 9_000_000 + b"[]]}"
    attacks = {
        "lines": members | {"history.jsonl": b"{}\n" * 10_000_000},
        "header": members | {"model.safetensors": struct.pack("<Q", len(header)) + header},
        "record": members | {"run.json": b"[" + b"[]," * 9_000_000 + b"0]"},
        "names": members | {f"{number:05d}": b"" for number in range(10_000)},
    }
    for kind, files in attacks.items():
        data = zipped(files)
        assert len(data) < 2_000_000
        memory, seconds = peak(lambda data=data: import_zip(trained, data))
        assert memory < 80_000_000, kind
        assert seconds < 20, kind


@pytest.mark.slow
def test_many_lines_are_checked_in_little_memory(tmp_path: Path):
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 1.5}\n' * 200_000)
    tracemalloc.start()
    POINTS.check(path)
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


def test_export_is_reproducible_and_imported_unchanged(trained: RunStore, tmp_path: Path):
    run = trained.get("classic")
    for name in ("one.zip", "two.zip"):
        export(run, None, True, tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    import_zip(trained, (tmp_path / "one.zip").read_bytes())
    again = trained.get("again")
    assert (again.history(), again.samples(), again.text()) == (run.history(), run.samples(), run.text())
    assert again.latest().newest.digest == run.latest().newest.digest


def test_export_omits_bad_lines(trained: RunStore, tmp_path: Path):
    run = trained.get("classic")
    good = run.history()
    with run.history_path.open("ab") as file:
        file.write(b'{"loss": 1.0}\n[]\n{"step": ')
    export(run, None, False, tmp_path / "run.zip")
    import_zip(trained, (tmp_path / "run.zip").read_bytes())
    assert trained.get("again").history() == good


def test_import_with_future_times_does_not_become_the_default(trained: RunStore, members):
    import_zip(trained, zipped(changed("run.json", created=250_000_000_000.0)(members)))
    assert refreshed(trained).current.run == "gru"
    assert trained.get("again").latest().newest.time <= time.time()
    assert trained.get("again").spec.created <= time.time()
