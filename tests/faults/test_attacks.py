"""The limits that `python -m tests.faults.attacks` checks, and one second of one attack."""

import math
from collections import Counter

import pytest

from tests.faults.attackers import ATTACKS
from tests.faults.attacks import Result, run_attack

FAST = [0.001] * 100


@pytest.mark.parametrize(
    ("peak", "health", "seen", "faults"),
    [
        (400e6, FAST, {"200": 9}, []),
        (401e6, FAST, {}, ["took over 400 MB"]),
        (1e8, [*FAST[2:], 0.6, 0.6], {}, ["health took over 500 ms"]),
        (1e8, [*FAST[2:], math.inf, math.inf], {}, ["health took over 500 ms"]),
        (1e8, FAST, {"200": 1, "500": 1}, ["answered 500"]),
    ],
)
def test_costs_over_a_limit_are_faults(
    peak: float, health: list[float], seen: dict[str, int], faults: list[str]
):
    assert Result(peak, 0.0, health, Counter(seen)).faults(frozenset({"200"})) == faults


@pytest.mark.slow
def test_attack_is_answered_and_measured(trained_root):
    one = next(one for one in ATTACKS if one.name == "requests of other sites")
    result = run_attack(one, trained_root, 1.0)
    assert set(result.seen) == {"403"}
    assert len(result.health) >= 10
    assert 50e6 < result.peak < 400e6
