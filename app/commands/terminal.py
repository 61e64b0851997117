"""What commands print: nothing that comes from outside is a control sequence or markup."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from app.streams import visible


def say(text: str) -> None:
    """Print a line or several at once, with control characters shown as escapes."""
    print(visible(text), flush=True)


def cell(value: Any) -> Text:
    """A value in a table: its text alone, without markup."""
    return Text(visible(str(value)))
