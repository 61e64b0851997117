"""Fields that the requests of several APIs share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, StringConstraints
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from model.cells import CELLS
from model.sampling import ABOVE_ZERO, RANGES

SMALLEST_SEED, LARGEST_SEED = -(2**63), 2**63 - 1
Seed = Annotated[int, Field(ge=SMALLEST_SEED, le=LARGEST_SEED)]
StopString = Annotated[str, StringConstraints(min_length=1)]
Stop = StopString | list[StopString]
Bias = Annotated[float, Field(ge=-100, le=100)]


def unknown_mode() -> Any:
    """The field `unknown` of a request that has a prompt or a text."""
    return Field(
        None,
        description="What to do with characters that the model has never seen; `replace` takes the most "
        "similar one that it knows. The answer reports how many were changed. Default: CHARLOOM_UNKNOWN.",
    )


def _cell_name(given: str) -> str:
    if given not in CELLS:
        raise PydanticKnownError("literal_error", {"expected": ", ".join(CELLS)})
    return given


CellName = Annotated[str, AfterValidator(_cell_name), Field(json_schema_extra={"enum": list(CELLS)})]


class Only:
    """Annotates an unsupported field that is accepted only if it is null or has one of `values`.

    These have no effect; any other value would have to change the answer, so it is refused.
    """

    def __init__(self, *values: Any) -> None:
        self.values = (*values, None)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"enum": list(self.values)}

    def _check(self, given: Any) -> Any:
        if any(
            given == value and isinstance(given, bool) == isinstance(value, bool) for value in self.values
        ):
            return given
        raise PydanticKnownError("none_required")


def ranged(name: str, description: str) -> Any:
    """An optional field with the range of the sampling setting of the same name."""
    low, high = RANGES[name]
    above = name in ABOVE_ZERO
    return Field(None, gt=low if above else None, ge=None if above else low, le=high, description=description)
