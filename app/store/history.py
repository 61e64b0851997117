"""The loss curve and the samples of a run as JSON lines: appended to during training, truncated on resume.

Reading and exporting skip a line that is incomplete or invalid. An import with such a line is refused.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from app.errors import RunFileError
from app.store.files import open_new, open_regular, replacing
from app.store.records import LARGEST_NUMBER, MAX_COUNT
from model.checkpoint import MAX_STEP

Record = dict[str, Any]
Replacing = Callable[[Path], AbstractContextManager[Path]]

LONGEST_LINE = 1 << 20  # bytes; the longest possible sample takes 70% of it
PIECE = 1 << 20
HELD_BYTES = 1 << 24  # maximum total size of the lines that `newest` returns


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).decode


class Lines:
    """One kind of record: a `step`, numbers that may be null, and texts. Other fields are ignored."""

    def __init__(self, numbers: Iterable[str] = (), texts: Iterable[str] = ()) -> None:
        self._numbers, self._texts = tuple(numbers), tuple(texts)

    def parse(self, line: bytes) -> Record | None:
        """The record in a line; None if the line is not valid."""
        try:
            found = _decode(line.decode())
            step = found["step"]
            if type(step) is not int or not 0 <= step <= MAX_STEP:
                return None
            record: Record = {"step": step}
            for name in self._numbers:
                value = found.get(name)
                if value is not None and (type(value) not in (int, float) or abs(value) > LARGEST_NUMBER):
                    return None
                # NumPy would keep such an integer as an object
                record[name] = float(value) if type(value) is int and abs(value) > MAX_COUNT else value
            for name in self._texts:
                text = record[name] = found[name]
                text.encode()  # fails for a lone surrogate, which could not be sent to a client
        except Exception:  # a damaged line may raise anything, and is skipped
            return None
        return record

    def decode(self, data: bytes) -> list[Record]:
        """The records in the content of a file."""
        return [record for line in data.split(b"\n") if line and (record := self.parse(line)) is not None]

    def read(self, path: Path) -> list[Record]:
        """The records in a file; none if it does not exist. Raises OSError as `open_regular` does."""
        try:
            with open_regular(path) as file:
                return [record for line in _lines(file) if (record := self.parse(line)) is not None]
        except FileNotFoundError:
            return []

    def newest(self, path: Path, after: int, limit: int) -> list[tuple[int, Record]]:
        """The last `limit` records after line number `after`, with their line numbers, which start at 1.

        Parses only the last `limit` lines, and returns at most HELD_BYTES of them. Raises OSError.
        """
        after = max(after, count(path) - limit)
        found: deque[tuple[int, Record, int]] = deque(maxlen=limit)
        held = 0
        try:
            with open_regular(path) as file:
                for number, line in enumerate(_lines(file), 1):
                    if number > after and (record := self.parse(line)) is not None:
                        found.append((number, record, len(line)))
                        held += len(line)
                    while held > HELD_BYTES:
                        held -= found.popleft()[2]
        except FileNotFoundError:
            pass
        return [(number, record) for number, record, _ in found]

    def cut_back(self, path: Path, step: int, replacing: Replacing = replacing) -> None:
        """Removes the records after `step`; a run that is resumed from there writes them again."""
        try:
            with open_regular(path) as file, replacing(path) as kept, kept.open("wb") as out:
                for line in _lines(file):
                    if (record := self.parse(line)) is not None and record["step"] <= step:
                        out.write(line)
        except FileNotFoundError:
            with replacing(path):
                pass

    def valid(self, file: BinaryIO) -> Iterator[bytes]:
        """The complete lines of a file that are valid records."""
        return (line for line in _lines(file) if self.parse(line) is not None)

    def check(self, path: Path) -> None:
        """Raises RunFileError for the first complete line that is not a valid record, OSError."""
        with open_regular(path) as file:
            for number, line in enumerate(_lines(file), 1):
                if self.parse(line) is None:
                    shown = line[:80].rstrip(b"\n").decode(errors="replace")
                    fields = ", ".join(("step", *self._texts)) if self._texts else "step, and finite numbers"
                    raise RunFileError(
                        f"{path.name}: line {number:,} is not a record with {fields}. Given: {shown!r}"
                    )


POINTS = Lines(
    (
        *("epoch", "characters", "seconds", "learning_rate"),
        *("loss", "smooth_loss", "summed_smooth_loss", "validation_loss"),
    )
)
SAMPLES = Lines(texts=("kind", "text"))


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The complete lines of a file. Of a line that is too long, only the end is returned."""
    while line := file.readline(LONGEST_LINE):
        if line.endswith(b"\n"):
            yield line


def count(path: Path) -> int:
    """The number of complete lines in a file, valid or not; 0 if it does not exist. Raises OSError."""
    lines = 0
    try:
        with open_regular(path) as file:
            while piece := file.read(PIECE):
                lines += piece.count(b"\n")
    except FileNotFoundError:
        pass
    return lines


def encode(record: Record) -> bytes:
    """A record as a JSON line."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def append(path: Path, records: Iterable[Record], check: Callable[[], None] = lambda: None) -> None:
    """Appends records to a file, after calling `check`. Raises OSError, also for a link."""
    with open(open_new(path, os.O_WRONLY | os.O_APPEND), "ab") as file:
        check()  # after opening: if the file is replaced from here on, the old one is written to
        file.write(b"".join(encode(record) for record in records))


def last_measured(records: Iterable[Record], name: str) -> tuple[int, float] | None:
    """The step and value of the last record that has the number `name`; None if there is none."""
    found = None
    for record in records:
        if record.get(name) is not None:
            found = (record["step"], record[name])
    return found
