"""Draws the rooms of the program from the import contract in pyproject.toml: `python docs/rooms.py`.

The picture is docs/images/rooms.svg. The sentence of each room is the first one of its own docstring, so that
neither the arrangement nor the words can drift from the code; a test compares the file with a new drawing.
"""

from __future__ import annotations

import ast
import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "rooms.svg"
APP_WIDTH, API_WIDTH, MARGIN, GAP = 620, 340, 20, 10  # pixels
WIDTH = APP_WIDTH + API_WIDTH + 2 * MARGIN + 2 * GAP
LINE, CHARACTER = 16, 6.4  # height of a line of text, and about the width of a character in it
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #3d444d; }
  .name { font: 600 13px ui-monospace, monospace; fill: #0b6e4f; }
  .title { font-size: 13px; fill: #1f2328; }
  .page { fill: #ffffff; }
  .room { fill: #f6f8fa; stroke: #d1d9e0; }
  @media (prefers-color-scheme: dark) {
    text { fill: #b1bac4; }
    .name { fill: #58c79b; }
    .title { fill: #f0f6fc; }
    .page { fill: #0d1117; }
    .room { fill: #151b23; stroke: #3d444d; }
  }
"""

Floors = list[list[str]]


def floors(container: str) -> Floors:
    """The rows of the import contract of a package, the highest first, each a list of module names."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for contract in settings["tool"]["importlinter"]["contracts"]:
        if contract.get("containers") == [container]:
            return [[f"{container}.{name}" for name in row.split(" | ")] for row in contract["layers"]]
    raise LookupError(f"pyproject.toml has no contract of the layers of {container}")


def sentence(module: str) -> str:
    """The first sentence of the docstring of a module or package."""
    path = ROOT / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].replace("`", "").split())


def room(module: str, x: float, y: float, width: float, height: float) -> list[str]:
    """One room: its name, and its sentence in as many lines as it takes."""
    name = module.rsplit(".", 1)[-1]
    lines = wrapped(module, width)
    drawn = [f'<rect class="room" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>']
    drawn.append(f'<text class="name" x="{x + 12:g}" y="{y + 22:g}">{escape(name)}</text>')
    for index, line in enumerate(lines):
        drawn.append(f'<text x="{x + 12:g}" y="{y + 40 + LINE * index:g}">{escape(line)}</text>')
    return drawn


def wrapped(module: str, width: float) -> list[str]:
    return textwrap.wrap(sentence(module), int((width - 24) / CHARACTER))


def stack(rows: Floors, x: float, y: float, width: float) -> tuple[list[str], float]:
    """Floors below one another, from `y` on; what is drawn, and where it ends."""
    drawn: list[str] = []
    for row in rows:
        each = (width - GAP * (len(row) - 1)) / len(row)
        height = 34 + LINE * max(len(wrapped(module, each)) for module in row)
        for index, module in enumerate(row):
            drawn += room(module, x + index * (each + GAP), y, each, height)
        y += height + GAP
    return drawn, y


def drawing() -> str:
    """The whole picture as SVG."""
    drawn: list[str] = []
    bottom = 0.0
    for x, width, title, container in (
        (MARGIN, APP_WIDTH, "app/ — a room imports only rooms on lower floors", "app"),
        (MARGIN + APP_WIDTH + 2 * GAP, API_WIDTH, "app/api/ — the same rule within it", "app.api"),
    ):
        drawn.append(f'<text class="title" x="{x}" y="{MARGIN + 12}">{escape(title)}</text>')
        body, end = stack(floors(container), x, MARGIN + 26, width)
        drawn += body
        bottom = max(bottom, end)
    drawn.append(f'<text class="title" x="{MARGIN}" y="{bottom + 24:g}">model/ — below all of it</text>')
    body, bottom = stack([["model"]], MARGIN, bottom + 38, WIDTH - 2 * MARGIN)
    drawn += body
    height = bottom - GAP + MARGIN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:g}" role="img">'
    title = "<title>The rooms of Charloom, and which may import which</title>"
    page = f'<rect class="page" width="{WIDTH}" height="{height:g}"/>'
    return "\n".join([head, title, f"<style>{STYLE}</style>", page, *drawn, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
