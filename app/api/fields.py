"""Fields that the requests of several dialects share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from model.sampling import ABOVE_ZERO, RANGES

LARGEST_SEED = 2**63 - 1
StopString = Annotated[str, StringConstraints(min_length=1)]
Stop = StopString | list[StopString]
Bias = Annotated[float, Field(ge=-100, le=100)]


def ranged(name: str, description: str) -> Any:
    """An optional field whose range is that of the sampler's setting of the same name."""
    low, high = RANGES[name]
    above = name in ABOVE_ZERO
    return Field(None, gt=low if above else None, ge=None if above else low, le=high, description=description)
