"""`charloom doctor`: what is found, a line each, and what to do about it."""

from __future__ import annotations

from app.doctor import examine
from app.settings import Settings

MARKS = {"ok": "ok  ", "warning": "WARN", "fault": "FAIL"}


def doctor(settings: Settings) -> bool:
    """Print the findings as they come; say whether there is no fault among them."""
    healthy = True
    for finding in examine(settings):
        print(f"{MARKS[finding.state]} {finding.name}: {finding.message}", flush=True)
        if finding.advice:
            print(f"     -> {finding.advice}", flush=True)
        healthy &= finding.state != "fault"
    return healthy
