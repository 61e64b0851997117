"""Recognises texts that are not prose: tables, JSON, markup, code and random characters."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import numpy as np

SAMPLE = 100_000  # characters that are examined
LEAST_LINES, LEAST_CHARACTERS, LEAST_KEYS = 20, 2_000, 20
TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,200}>")
KEY = re.compile(r'"[^"\n]{1,80}"\s*:')
CODE = re.compile(
    r"^\s*(?:(?:def|class|import|from|return|if|elif|else|for|while|try|except|function|const|let|var|public|private|"
    r"static|void|int|struct|fn|pub|use|package|namespace|using)\b.*[:;{(]?|#(?:include|define|if|ifn?def|endif|else|undef)\b.*|//.*|.*[;{}]|[\])}]+[,;]?)\s*$"
)
CODE_MARK = re.compile(r"[;{}()=\[\]]|:$|^\s*(?:import|from|return)\b|^\s*#\w")
SYMBOLS = "(){}[]=;<>$|&*\\_#+/@"
FEW_CODE_LINES, CODE_SYMBOLS = 0.1, 0.05  # minimum fraction of code lines and symbols in code with comments
SHARE = 0.8  # minimum fraction of a table's lines with the same number of separators
TAGS, KEYS, CODE_LINES = 0.15, 0.1, 0.45  # minimum fraction of characters in tags, keys per line, code lines
RELATED = 0.03  # minimum mutual information of neighbours, as a fraction of the entropy, unless random
SEPARATORS = {
    "tabs": re.compile(r"\t"),
    "semicolons": re.compile(r";(?! )"),
    "commas": re.compile(r",(?! )"),
    "bars": re.compile(r"\|"),
    "spaces": re.compile(r"(?<=\S) {2,}(?=\S)|(?<=\d) (?=[-+.]?\d)"),
}
AS_IN_PROSE = {"semicolons": re.compile(r"; "), "commas": re.compile(r", ")}


class Looks(NamedTuple):
    """The code of a finding, and its message."""

    code: str
    message: str


def appearance(sample: str) -> Looks | None:
    """What `sample`, the beginning of a text, looks like; None for prose."""
    if len(sample) < LEAST_CHARACTERS:
        return None
    if _is_structureless(sample):
        return Looks(
            "looks_random",
            "the text looks like random characters: each is independent of the one before, so there is "
            "nothing to learn",
        )
    lines = [line for line in sample.split("\n")[:-1] if line.strip()] or [sample]
    if sum(len(match[0]) for match in TAG.finditer(sample)) > TAGS * len(sample):
        return Looks("looks_like_markup", "the text looks like markup: the network will learn its tags too")
    keys = len(KEY.findall(sample)) if sample.lstrip()[:1] in ("[", "{") else 0
    if keys > max(LEAST_KEYS, KEYS * len(lines)):  # JSON often is a single line
        return Looks("looks_like_json", "the text looks like JSON: the network will learn its syntax too")
    if len(lines) >= LEAST_LINES:
        if name := _separator(lines):
            return Looks(
                "looks_like_a_table",
                f"the text looks like a table, separated by {name}: the network will learn rows, not prose",
            )
        code = sum(bool(CODE.match(line) and CODE_MARK.search(line)) for line in lines) / len(lines)
        symbols = sum(map(sample.count, SYMBOLS)) / len(sample)
        if code > CODE_LINES or (code > FEW_CODE_LINES and symbols > CODE_SYMBOLS):
            return Looks("looks_like_code", "the text looks like source code")
    return None


def _separator(lines: list[str]) -> str | None:
    """The separator that occurs equally often in most lines: at least twice, or once for a tab."""
    different = list(set(lines))  # a line of prose that is repeated is not a table
    for name, separator in SEPARATORS.items():
        if _separates(separator, lines, 1 if name == "tabs" else 2):
            return name
    if len(different) >= LEAST_LINES:
        return next((name for name, mark in AS_IN_PROSE.items() if _separates(mark, different, 2)), None)
    return None


def _separates(separator: re.Pattern[str], lines: list[str], least: int) -> bool:
    columns, rows = Counter(len(separator.findall(line)) for line in lines).most_common(1)[0]
    return columns >= least and rows > SHARE * len(lines)


def _is_structureless(sample: str) -> bool:
    """Whether each character is independent of the one before: shuffling leaves the entropy of pairs."""
    points = np.frombuffer(sample.encode("utf-32-le", "surrogatepass"), np.uint32)
    _, ids = np.unique(points, return_inverse=True)
    distinct = int(ids.max()) + 1
    if distinct < 3 or len(ids) < distinct**2:  # too few pairs to estimate their entropy
        return False
    information = _entropy_of_pairs(np.random.default_rng(0).permutation(ids)) - _entropy_of_pairs(ids)
    return information < RELATED * _entropy(ids)


def _entropy_of_pairs(ids: np.ndarray) -> float:
    return _entropy(ids[:-1] * (int(ids.max()) + 1) + ids[1:])


def _entropy(values: np.ndarray) -> float:
    counts = np.unique(values, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())
