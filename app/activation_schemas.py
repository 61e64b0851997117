"""The JSON of /activations."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ActivationsRequest(BaseModel):
    """A text, and the unit to be shown along it; null is the same as absent."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"text": "What light [Aside] is this?", "layer": 0, "unit": 7}]},
    )

    text: str | None = Field(
        None,
        min_length=1,
        description="At most CHARLOOM_MAX_PROMPT characters; by default the end of the model's own text.",
    )
    model: str | None = Field(None, description="`run`, `run@step` or `run@best`; by default the newest.")
    layer: int | None = Field(None, ge=0, description="From 0, the one that reads the characters.")
    unit: int | None = Field(
        None, ge=0, description="From 0; without layer and unit the one that follows a feature most closely."
    )


class FollowerInfo(BaseModel):
    """The unit that follows a feature of the text most closely."""

    feature: str
    layer: int
    unit: int
    correlation: float = Field(description="Pearson's, over the characters of this text; -1 to 1.")


class ActivationsResponse(BaseModel):
    """One unit along a text."""

    text: str
    model: str
    step: int
    digest: str
    cell: str
    layers: int
    hidden: int = Field(description="Units of a layer.")
    layer: int
    unit: int
    values: list[float] = Field(description="The unit's output after each character; -1 to 1.")
    followers: list[FollowerInfo] = Field(
        description="For each feature that varies in this text the unit closest to it, the closest first."
    )
