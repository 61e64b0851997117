"""The JSON of /score."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ScoreRequest(BaseModel):
    """A text to be judged; null is the same as absent."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"text": "What light through yonder window breaks?", "top": 3}]},
    )

    text: str = Field(
        min_length=1, description="At most CHARLOOM_MAX_PROMPT characters, those of `prompt` included."
    )
    prompt: str | None = Field(None, description="What stands before the text; read, but not scored.")
    model: str | None = Field(None, description="`run`, `run@step` or `run@best`; by default the newest.")
    models: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="Several of them, at most CHARLOOM_MAX_MODELS, instead of `model`."
    )
    top: Annotated[int, Field(ge=0, le=5)] | None = Field(
        None, description="How many of the likeliest characters to list at each place."
    )


class ModelScore(BaseModel):
    """One network's judgement. Natural logarithms of its own probabilities; null where nothing is known.

    Without a prompt nothing stands before the first character, and it has no probability.
    """

    model: str
    step: int
    digest: str
    error: str | None = Field(None, description="Why there is no score.")
    bits: float | None = Field(None, description="Minus the sum of the log-probabilities, base 2.")
    bits_per_character: float | None = None
    nats_per_character: float | None = Field(None, description="The same as the loss of training.")
    logprobs: list[float | None] | None = Field(None, description="One for each character of the text.")
    ranks: list[int | None] | None = Field(
        None, description="1 for the likeliest character at that place, 2 for the next, …"
    )
    top: list[dict[str, float] | None] | None = Field(
        None, description="The likeliest characters at each place, with their log-probabilities."
    )


class ScoreResponse(BaseModel):
    """The judgements, in the order the models were named."""

    text: str
    prompt: str
    likeliest: str | None = Field(description="The model with the fewest bits.")
    scores: list[ModelScore]
