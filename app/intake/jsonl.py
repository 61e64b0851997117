"""Reads JSON Lines files of training examples, as used for fine-tuning at OpenAI, as one text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any

from app.intake.findings import FileRefusedError, printable_name
from app.store.files import Source

LONGEST_LINE = 1 << 20  # bytes


def example_texts(source: Source) -> Iterator[str]:
    """The texts of all lines, each followed by a newline.

    A line is an object with `text`, with `prompt` and `completion`, or with `messages`, whose contents are
    joined with newlines. Raises FileRefusedError for any other line.
    """
    name = printable_name(source.name)
    for number, line in enumerate(_lines(source.content), 1):
        if line.strip():
            text = _text(line, number, name)
            yield text.replace("\r\n", "\n").replace("\r", "\n") + "\n"


def _lines(content: IO[bytes]) -> Iterator[bytes]:
    while line := content.readline(LONGEST_LINE):
        yield line


def _text(line: bytes, number: int, file: str) -> str:
    try:
        example = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        reason = (
            f"is longer than {LONGEST_LINE:,} bytes" if len(line) == LONGEST_LINE else f"is not JSON: {error}"
        )
        raise _refused(number, reason, file) from None
    text = _joined(example) if isinstance(example, dict) else None
    if text is None:
        reason = (
            "has no text, no prompt and completion, and no messages with content; to train on the JSON "
            "itself, rename the file to .txt"
        )
        raise _refused(number, reason, file)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        reason = f"holds U+{ord(text[error.start]):04X}, half of a surrogate pair"
        raise _refused(number, reason, file) from None
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


def _refused(number: int, reason: str, file: str) -> FileRefusedError:
    return FileRefusedError("bad_example", f"line {number:,} of {file} {reason}", None, file)
