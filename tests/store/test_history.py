from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import RunFileError
from app.store import history
from app.store.history import POINTS, SAMPLES

records = st.lists(
    st.fixed_dictionaries({"step": st.integers(0, 10**9), "kind": st.just("sample"), "text": st.text()})
)
GOOD = b'{"step": 5, "kind": "sample", "text": "x"}'
BAD = {
    "empty": b"",
    "spaces": b"   ",
    "torn": GOOD[:-3],
    "no step": b'{"kind": "sample", "text": "x"}',
    "no text": b'{"step": 5, "kind": "sample"}',
    "other JSON": b"[]",
    "a number": b"5",
    "null": b"null",
    "a step that is a text": b'{"step": "5", "kind": "sample", "text": "x"}',
    "a step that is true": b'{"step": true, "kind": "sample", "text": "x"}',
    "a negative step": b'{"step": -5, "kind": "sample", "text": "x"}',
    "a step of 400 digits": b'{"step": %s, "kind": "sample", "text": "x"}' % (b"9" * 400),
    "a step of 5000 digits": b'{"step": %s, "kind": "sample", "text": "x"}' % (b"9" * 5000),
    "a text that is a list": b'{"step": 5, "kind": "sample", "text": []}',
    "a lone surrogate": b'{"step": 5, "kind": "sample", "text": "\\ud800"}',
    "deep": b"[" * 100_000,
    "bytes": bytes(range(1, 10)) + bytes(range(11, 256)),
    "too long": b'{"step": 5, "kind": "sample", "text": "%s"}' % (b"x" * history.LONGEST_LINE),
}
BAD_POINTS = {
    "infinity": b'{"step": 5, "loss": Infinity}',
    "an overflow": b'{"step": 5, "loss": 1e999}',
    "400 digits": b'{"step": 5, "loss": %s}' % (b"9" * 400),
    "not a number": b'{"step": 5, "loss": NaN}',
    "a list": b'{"step": 5, "loss": []}',
    "true": b'{"step": 5, "seconds": true}',
    "without a step": b'{"loss": 1.0}',
}


@given(records, st.data())
def test_truncated_last_line_is_the_only_one_lost(written, data):
    lines = [history.encode(record) for record in written]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    read = SAMPLES.decode(whole[:cut])
    assert read == written[: len(read)]
    assert sum(map(len, lines[: len(read) + 1])) >= cut - 1  # nothing whole was dropped


@pytest.mark.parametrize(
    ("kind", "bad"),
    [(SAMPLES, line) for line in BAD.values()] + [(POINTS, line) for line in BAD_POINTS.values()],
    ids=[*BAD, *BAD_POINTS],
)
def test_bad_line_is_the_only_one_lost(tmp_path: Path, kind: history.Lines, bad: bytes):
    path = tmp_path / "lines.jsonl"
    other = GOOD.replace(b"5", b"6")
    path.write_bytes(b"\n".join((GOOD, bad, other, b"")))
    assert [record["step"] for record in kind.read(path)] == [5, 6]
    assert [number for number, _ in kind.newest(path, 0, 10)] == [1, 3]
    assert history.count(path) == 3
    with path.open("rb") as file:
        assert list(kind.valid(file)) == [GOOD + b"\n", other + b"\n"]
    kind.cut_back(path, 5)
    assert path.read_bytes() == GOOD + b"\n"


@pytest.mark.parametrize("bad", ["no step", "other JSON", "deep", "too long", "empty"])
def test_file_with_a_bad_line_is_refused_with_the_line_number(tmp_path: Path, bad: str):
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b"\n".join((GOOD, GOOD, BAD[bad], GOOD, b"")))
    with pytest.raises(
        RunFileError, match=r"samples.jsonl: line 3 is not a record with step, kind, text"
    ) as raised:
        SAMPLES.check(path)
    assert len(str(raised.value)) < 500
    path.write_bytes(GOOD + b"\n" + GOOD[:10])  # torn, as when copied during a write
    SAMPLES.check(path)


def test_appended_records_are_read(tmp_path: Path):
    path = tmp_path / "history.jsonl"
    assert SAMPLES.read(path) == []
    written = {"kind": "sample", "text": "line\nbreak ünïcode \u2028"}
    history.append(path, [{"step": 0} | written, {"step": 5} | written])
    history.append(path, [{"step": 10} | written])
    assert [record["step"] for record in SAMPLES.read(path)] == [0, 5, 10]
    assert SAMPLES.read(path)[1]["text"] == written["text"]


def test_newest_records_are_read_without_parsing_earlier_ones(tmp_path: Path, monkeypatch):
    path = tmp_path / "samples.jsonl"
    history.append(path, [{"step": step, "kind": "sample", "text": "x" * 100} for step in range(50)])
    parsed: list[bytes] = []
    parse = SAMPLES.parse
    monkeypatch.setattr(SAMPLES, "parse", lambda line: (parsed.append(line), parse(line))[1])
    assert history.count(path) == 50
    assert not parsed
    assert [number for number, _ in SAMPLES.newest(path, 48, 10)] == [49, 50]
    assert len(parsed) == 2
    assert [record["step"] for _, record in SAMPLES.newest(path, 0, 3)] == [47, 48, 49]
    assert len(parsed) == 5
    monkeypatch.setattr(history, "HELD_BYTES", 300)
    assert [number for number, _ in SAMPLES.newest(path, 0, 50)] == [49, 50]
    assert SAMPLES.newest(tmp_path / "none", 0, 3) == []


def test_truncated_history_keeps_its_earlier_bytes(tmp_path: Path):
    path = tmp_path / "history.jsonl"
    lines = [b'{"step": 0, "loss":  1.5000, "later": [1]}\n', b'{"loss": 2, "step": 5}\n', b'{"step": 6}\n']
    path.write_bytes(b"".join(lines))
    POINTS.cut_back(path, 5)
    assert path.read_bytes() == b"".join(lines[:2])
    POINTS.cut_back(tmp_path / "none", 5)
    assert (tmp_path / "none").read_bytes() == b""
