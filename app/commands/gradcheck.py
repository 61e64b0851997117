"""`charloom gradcheck`: checks the gradients of a new network, parameter by parameter."""

from __future__ import annotations

from functools import partial

from rich import box
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from model.config import PRESETS
from model.gradcheck import (
    METHODS,
    OWN_IDS,
    OWN_VOCABULARY,
    ParameterCheck,
    assignment_problem,
    check,
    make_problem,
)


def gradcheck(cell: str, layers: int, hidden: int, method: str | None, elements: int) -> bool:
    """Check a network with the assignment's initialisation, and print the results; True if all passed.

    Compares at most `elements` elements per tensor; 0 means all. Without `method`, uses all. Raises
    ConfigError.
    """
    config = PRESETS["classic"].replace(cell=cell, layers=layers, hidden=hidden)
    # the assignment's figures apply only to its own network
    build = assignment_problem if config == PRESETS["classic"] else partial(make_problem, config)
    problem = build(OWN_VOCABULARY, OWN_IDS)
    passed = True
    with threadpool_limits(1):
        for name in METHODS if method is None else (method,):
            results = list(check(problem, name, elements=elements or None))
            Console().print(table(name, results))
            passed &= all(result.passed for result in results)
    return passed


def table(method: str, results: list[ParameterCheck]) -> Table:
    """The results of one method, at most 80 columns wide."""
    title = f"{method}, error ||ga - gn|| / (||ga|| + ||gn||), {sum(r.checked for r in results):,} elements"
    columns = ("parameter", "shape", "error", "limit", "assignment", "")
    table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE)
    for column in table.columns:
        column.no_wrap = True
    for result in results:
        table.add_row(*row(result))
    return table


def row(result: ParameterCheck) -> list[str]:
    figure = result.assignment_figure
    return [
        result.name,
        " x ".join(map(str, result.shape)),
        f"{result.relative_error:.2e}",
        f"{result.limit:.2e}",
        "" if figure is None else f"{figure:.2e}",
        "passed" if result.passed else "FAILED",
    ]
