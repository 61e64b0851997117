"""A few seconds of the fuzzer; `python -m tests.faults.fuzz --seconds 600` runs it for ten minutes."""

import logging

import pytest

from tests.faults.fuzz import TARGETS, fuzz

CASES = 600


@pytest.mark.slow
def test_mutated_external_input_is_accepted_or_refused():
    logging.disable(logging.CRITICAL)
    try:
        counts, findings = fuzz(lambda count: count == CASES)
    finally:
        logging.disable(logging.NOTSET)
    assert not findings, "\n".join(findings.values())
    assert counts.total() == CASES
    for target in TARGETS:  # otherwise the target tests nothing
        assert counts[f"{target} accepted"] > 0, counts
        assert counts[f"{target} refused"] > 0 or target == "run", counts
