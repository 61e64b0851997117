"""Loss curve and samples as JSON lines: appended to while training, cut back on resume."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from app.store.files import open_new

Record = dict[str, Any]


def encode(record: Record) -> bytes:
    """One record as one line."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def decode(data: bytes) -> list[Record]:
    """All whole records of a file's bytes: a torn last line, left by a kill, ends the list."""
    records = []
    for line in data.split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            if line:
                break
            continue
        records.append(record)
    return records


def read(path: Path) -> list[Record]:
    """The records of a file; none if it does not exist. Raises OSError for a link."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return decode(file.read())
    except FileNotFoundError:
        return []


def append(path: Path, records: Iterable[Record]) -> None:
    """Adds records to the end of a file. Raises OSError for a link."""
    with open(open_new(path, os.O_WRONLY | os.O_APPEND), "ab") as file:
        file.write(b"".join(encode(record) for record in records))


def last_measured(records: Iterable[Record], name: str) -> tuple[int, float] | None:
    """Step and value of the last record in which `name` was measured; None without any."""
    found = None
    for record in records:
        if record.get(name) is not None:
            found = (record["step"], record[name])
    return found


def up_to(records: Iterable[Record], step: int) -> list[Record]:
    """The records that a run resumed from `step` keeps; what came later will be written again."""
    return [record for record in records if record["step"] <= step]
