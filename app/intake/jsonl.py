"""JSON lines of training examples, as OpenAI's clients write them, as one text to learn from."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import IO, Any

from app.errors import UnusableTextError
from app.intake.findings import Finding
from app.store.files import Source

LONGEST_LINE = 1 << 20  # bytes


@contextmanager
def as_text(source: Source) -> Iterator[Source]:
    """The texts of all lines, one after the other, a line break behind each.

    A line is an object with `text`, with `prompt` and `completion`, or with `messages`, whose contents are
    joined by line breaks. Raises UnusableTextError with the line that is none of these.
    """
    name = f"{source.name.rpartition('.')[0]}.txt"
    with tempfile.TemporaryFile() as out:
        for number, line in enumerate(_lines(source.content), 1):
            if line.strip():
                out.write(_text(line, number, source.name).encode("utf-8", "surrogatepass") + b"\n")
        out.seek(0)
        yield Source(name, out)


def _lines(content: IO[bytes]) -> Iterator[bytes]:
    while line := content.readline(LONGEST_LINE):
        yield line


def _text(line: bytes, number: int, file: str) -> str:
    try:
        example = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = (
            f"is longer than {LONGEST_LINE:,} bytes" if len(line) == LONGEST_LINE else f"is not JSON: {error}"
        )
        raise _unusable(number, reason, file) from None
    text = _joined(example) if isinstance(example, dict) else None
    if text is None:
        raise _unusable(
            number, "has neither text, nor prompt and completion, nor messages with contents", file
        )
    return text


def _joined(example: dict[str, Any]) -> str | None:
    if isinstance(example.get("text"), str):
        return str(example["text"])
    pair = example.get("prompt"), example.get("completion")
    if all(isinstance(part, str) for part in pair):
        return "".join(map(str, pair))
    messages = example.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    contents = [message.get("content") for message in messages if isinstance(message, dict)]
    return "\n".join(map(str, contents)) if all(isinstance(text, str) for text in contents) else None


def _unusable(number: int, reason: str, file: str) -> UnusableTextError:
    message = f"line {number:,} of {file} {reason}"
    return UnusableTextError(message, [asdict(Finding("refusal", "bad_example", message, None, file))])
