"""Safe output: external data is printed without control sequences or markup."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from app.streams import visible


def say(text: str) -> None:
    """Print text immediately, with control characters as escapes."""
    print(visible(text), flush=True)


def cell(value: Any) -> Text:
    """The cell of a table, whose value is not interpreted as markup."""
    return Text(visible(str(value)))
