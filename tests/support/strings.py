"""Lists the strings that a user can see: `python -m tests.support.strings [path ...]`, one per line."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
QUOTED = re.compile(r'"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`|\'(?:\\.|[^\'\\\n])*\'')
COMMENT = re.compile(r"^\s*(?://|/\*|\*).*$|\s//\s.*$", re.MULTILINE)
MARKUP_COMMENT = re.compile(r"\{#.*?#\}|<!--.*?-->", re.DOTALL)


class Text(NamedTuple):
    """A string of the program and the place where it is written."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def visible_texts(*paths: str) -> Iterator[Text]:
    """The strings of more than one word in these files and directories, by default in `app/` and `model/`."""
    for name in paths or ("app", "model"):
        place = ROOT / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.suffix in READERS:
                relative = path.relative_to(ROOT).as_posix()
                for line, text in READERS[path.suffix](path.read_text(encoding="utf-8")):
                    text = " ".join(text.split())
                    if re.search(r"[A-Za-z]{2,}.* .*[A-Za-z]|^[A-Z][a-z]+$", text):
                        yield Text(relative, line, text)


def _python(source: str) -> Iterator[tuple[int, str]]:
    tree = ast.parse(source)
    skipped = set(_not_shown(tree))
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            skipped.update(id(part) for part in ast.walk(node))
            yield (
                node.lineno,
                "".join(part.value if isinstance(part, ast.Constant) else "{…}" for part in node.values),
            )
            for part in node.values:
                yield from _inside(part)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def _inside(part: ast.expr) -> Iterator[tuple[int, str]]:
    """The strings in the expression of a placeholder: "{'one' if n == 1 else 'many words'}"."""
    if isinstance(part, ast.FormattedValue):
        for node in ast.walk(part.value):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.lineno, node.value


def _not_shown(tree: ast.AST) -> Iterator[int]:
    """Docstrings, except of routes and commands, which are shown in OpenAPI and as help texts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            shown = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _is_called(
                node.decorator_list
            )
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and not shown:
                yield id(first.value)
        if isinstance(node, ast.AnnAssign | ast.arg) and isinstance(node.annotation, ast.Constant):
            yield id(node.annotation)


def _is_called(decorators: list[ast.expr]) -> bool:
    return any(isinstance(decorator, ast.Call) for decorator in decorators)


def _script(source: str) -> Iterator[tuple[int, str]]:
    source = COMMENT.sub("", source)
    for found in QUOTED.finditer(source):
        yield source.count("\n", 0, found.start()) + 1, found.group()[1:-1]


def _markup(source: str) -> Iterator[tuple[int, str]]:
    source = MARKUP_COMMENT.sub(lambda found: "\n" * found.group().count("\n"), source)
    for found in re.finditer(r'>([^<>]+)<|(?:title|placeholder|alt|aria-label|content)="([^"]+)"', source):
        yield source.count("\n", 0, found.start()) + 1, found.group(1) or found.group(2)


READERS = {
    ".py": _python,
    ".js": _script,
    ".html": _markup,
    ".md": lambda text: enumerate(text.splitlines(), 1),
}


if __name__ == "__main__":
    print(*visible_texts(*sys.argv[1:]), sep="\n")
