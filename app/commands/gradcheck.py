"""`charloom gradcheck`: proves the gradients of a fresh network, parameter by parameter."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from model.config import PRESETS
from model.gradcheck import METHODS, ParameterCheck, check, make_problem
from model.text import read_text
from model.vocabulary import Vocabulary

# enough for the assignment's 25 characters, where no text is at hand
PANGRAM = "The quick brown fox jumps over the lazy dog.\nSphinx of black quartz, judge my vow!\n"


def gradcheck(corpus: Path, cell: str, layers: int, hidden: int, method: str | None, elements: int) -> bool:
    """Check a network of the assignment's initialisation by one method or all; print, and say if all passed.

    `elements` bounds how many elements of a tensor are compared, 0 compares all. Without a text at `corpus` a
    sentence stands in for it. Raises ConfigError, TextError.
    """
    config = PRESETS["classic"].replace(cell=cell, layers=layers, hidden=hidden)
    text = read_text(corpus) if corpus.exists() else PANGRAM
    vocabulary = Vocabulary.from_text(text)
    problem = make_problem(config, vocabulary, vocabulary.encode(text[:1000]))
    table = Table("method", "parameter", "shape", "checked", "relative error", "limit", "assignment", "")
    passed = True
    with threadpool_limits(1):
        for name in METHODS if method is None else (method,):
            for result in check(problem, name, elements=elements or None):
                table.add_row(name, *row(result))
                passed &= result.passed
    Console().print(table)
    return passed


def row(result: ParameterCheck) -> list[str]:
    figure = result.assignment_figure
    return [
        result.name,
        " x ".join(map(str, result.shape)),
        f"{result.checked:,}",
        f"{result.relative_error:.2e}",
        f"{result.limit:.2e}",
        "" if figure is None else f"{figure:.2e}",
        "passed" if result.passed else "FAILED",
    ]
