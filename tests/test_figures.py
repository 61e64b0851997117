"""The measured figures in README and performance.md are those of the tables in benchmarks/results."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NUMBER = re.compile(r"(?<![\w.,^])\d[\d,]*(?:\.\d+)?(?![\w^])")
FEWEST_DIGITS = 3  # fewer occur everywhere


def numbers(text: str) -> list[str]:
    return [found for found in NUMBER.findall(text) if len(re.sub(r"\D", "", found)) >= FEWEST_DIGITS]


def value(number: str) -> float:
    return float(number.replace(",", ""))


def precision(number: str) -> float:
    """The unit of the last digit given: 0.001 of 1.504, 1000 of 262,000."""
    if "." in number:
        return 10.0 ** -len(number.split(".")[1])
    digits = number.replace(",", "")
    return 10.0 ** (len(digits) - len(digits.rstrip("0")))


def unmeasured(text: str) -> list[str]:
    """The numbers in `text` that no measured one rounds to."""
    results = (path.read_text(encoding="utf-8") for path in RESULTS.glob("*.md"))
    measured = [value(number) for result in results for number in NUMBER.findall(result)]

    def is_measured(number: str) -> bool:
        return any(abs(value(number) - other) <= 0.51 * precision(number) for other in measured)

    return [number for number in numbers(text) if not is_measured(number)]


@pytest.mark.parametrize(
    ("page", "begin", "end"),
    [
        ("README.md", "- **It is fast.**", "- **It is reproducible.**"),
        ("docs/performance.md", "| generation in one thread", "So Muon is worth"),
    ],
)
def test_quoted_figures_were_measured(page: str, begin: str, end: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    quoted = text[text.index(begin) : text.index(end)]
    assert len(numbers(quoted)) >= 3
    assert unmeasured(quoted) == []


def test_figure_that_was_not_measured_is_found():
    assert unmeasured("| 189,649 | 1.466 |") == ["189,649", "1.466"]
