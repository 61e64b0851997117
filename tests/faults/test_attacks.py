"""The limits that `python -m tests.faults.attacks` checks, and one second of one attack."""

import math
import resource
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import attacks
from tests.faults.attackers import ATTACKS, Attack
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


@pytest.mark.parametrize(
    ("peak", "seconds", "seen", "code"),
    [
        (3.9e8, 0.4, "closed", 0),
        (4.1e8, 0.4, "closed", 1),
        (3.9e8, 0.6, "closed", 1),
        (3.9e8, 0.4, "500", 1),
    ],
)
def test_exit_code_is_0_only_while_every_attack_stays_within_the_limits(
    monkeypatch, capsys, peak: float, seconds: float, seen: str, code: int
):
    def run(one: Attack, root: Path, length: float) -> Result:
        if one.run.__name__ == "slow_uploads":
            return Result(peak, 0.0, [seconds] * 100, Counter([seen]))
        return Result(1e8, 0.0, FAST, Counter())

    monkeypatch.setattr(attacks, "run_attack", run)
    monkeypatch.setattr(attacks, "make_store", lambda root: None)
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["attacks"])
    assert attacks.main() == code
    assert capsys.readouterr().out.count("| ok |") == len(ATTACKS) - code


@pytest.mark.slow
def test_attack_is_answered_and_measured(trained_root):
    one = next(one for one in ATTACKS if one.name == "requests of other sites")
    result = run_attack(one, trained_root, 1.0)
    assert set(result.seen) == {"403"}
    assert len(result.health) >= 10
    assert 50e6 < result.peak < 400e6
