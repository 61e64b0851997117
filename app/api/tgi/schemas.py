"""The JSON of Text Generation Inference's routes, as far as it applies to a character model."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.fields import Only, Seed, StopString, ranged, unknown_mode
from app.engine.unknown import Unknown

MOST_ALTERNATIVES = 5


class TgiParameters(BaseModel):
    """The text to generate; null is the same as absent. A token is a character."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    max_new_tokens: int | None = Field(
        None, ge=1, description="Characters to write; by default CHARLOOM_DEFAULT_LENGTH."
    )
    temperature: float | None = ranged("temperature", "0 always takes the most likely character. Default 1.")
    top_k: int | None = ranged(
        "top_k", "Choose among the k most likely characters; 0 and -1 mean all, the default."
    )
    top_p: float | None = ranged(
        "top_p",
        "Choose among the most likely characters that together reach this probability. Default 1: all.",
    )
    typical_p: float | None = ranged(
        "typical_p",
        "Choose among the characters whose surprise is closest to the entropy and that together reach this "
        "probability. Default 1: all.",
    )
    repetition_penalty: float | None = ranged("repetition_penalty", "1, the default, turns it off.")
    frequency_penalty: float | None = ranged("frequency_penalty", "0, the default, turns it off.")
    do_sample: bool | None = Field(
        None,
        description="False, without temperature, top_k, top_p or typical_p, always takes the most likely "
        "character.",
    )
    seed: Seed | None = Field(None, description="Random by default.")
    stop: list[StopString] | None = Field(None, description="The text ends before any of these strings.")
    truncate: int | None = Field(
        None, ge=1, description="Use only this many characters from the end of the prompt."
    )
    return_full_text: bool | None = Field(None, description="Whether the answer starts with the prompt.")
    best_of: int | None = Field(
        None, ge=1, description="Return the most likely of this many texts; not for streams."
    )
    details: bool | None = Field(None, description="Whether the answer lists characters and seed.")
    decoder_input_details: bool | None = Field(
        None, description="Whether to list the characters of the prompt, too."
    )
    top_n_tokens: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = Field(
        None, description="How many alternatives the details list for each character."
    )
    unknown: Unknown | None = unknown_mode()
    grammar: Annotated[Any, Only()] = Field(None, description="Not supported.")
    adapter_id: Annotated[Any, Only()] = Field(None, description="Not supported: see `model`.")
    watermark: Annotated[Any, Only(False)] = Field(None, description="Not supported.")


class TgiRequest(BaseModel):
    """A prompt, and how to continue it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"inputs": "ROMEO:", "parameters": {"max_new_tokens": 100}}]},
    )

    inputs: Annotated[str, Field(strict=True)] = Field(description="The prompt.")
    parameters: TgiParameters | None = None
    stream: Annotated[bool, Field(strict=True)] | None = Field(
        None, description="Answer with server-sent events; /generate_stream always does."
    )
    model: Annotated[str, Field(strict=True)] | None = Field(
        None,
        description="`run`, `run@step` or `run@best`; the name of another server's model means the default.",
    )


class TgiToken(BaseModel):
    """A character and its log-probability."""

    id: int
    text: str
    logprob: float | None
    special: bool = False


class TgiPrefillToken(BaseModel):
    """A character of the prompt; the first has no log-probability."""

    id: int
    text: str
    logprob: float | None


class TgiSequence(BaseModel):
    """One of several texts."""

    generated_text: str
    finish_reason: str
    generated_tokens: int
    seed: int
    prefill: list[TgiPrefillToken] = []
    tokens: list[TgiToken] = []
    top_tokens: list[list[TgiToken]] | None = None


class TgiDetails(BaseModel):
    """How the text was generated."""

    finish_reason: str = Field(description="`length` or `stop_sequence`.")
    generated_tokens: int
    seed: int
    prefill: list[TgiPrefillToken] = []
    tokens: list[TgiToken] = []
    top_tokens: list[list[TgiToken]] | None = None
    best_of_sequences: list[TgiSequence] | None = None


class TgiResponse(BaseModel):
    """A text."""

    generated_text: str
    details: TgiDetails | None = None
    changed_characters: int | None = Field(
        None, description="Number of characters that were dropped or replaced, if that was allowed."
    )
