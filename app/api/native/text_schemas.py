"""The JSON of requests that generate, score or inspect texts, and of their answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.api.fields import Bias, Seed, Stop, ranged, unknown_mode
from app.engine.unknown import Unknown


class GenerateRequest(BaseModel):
    """The text to generate. All fields are optional; null means absent; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: str | None = Field(
        None,
        description="Text to continue; at most CHARLOOM_MAX_PROMPT characters, all known to the model. An "
        "empty prompt starts from a line break.",
    )
    length: int | None = Field(
        None,
        ge=1,
        description="Characters to write; at most CHARLOOM_MAX_LENGTH, by default CHARLOOM_DEFAULT_LENGTH.",
    )
    temperature: float | None = ranged(
        "temperature",
        "Below 1 the text is more predictable, above 1 more varied; 0 always takes the most likely "
        "character. Default 1.",
    )
    top_k: int | None = ranged(
        "top_k", "Choose among the k most likely characters; 0 and -1 mean all, the default."
    )
    top_p: float | None = ranged(
        "top_p",
        "Choose among the most likely characters that together reach this probability; 0 allows only the "
        "most likely. Default 1: all.",
    )
    min_p: float | None = ranged(
        "min_p",
        "Choose among characters at least this fraction as likely as the most likely one. Default 0: all.",
    )
    typical_p: float | None = ranged(
        "typical_p",
        "Choose among the characters whose surprise is closest to the entropy and that together reach this "
        "probability (locally typical sampling). Default 1: all.",
    )
    repetition_penalty: float | None = ranged(
        "repetition_penalty",
        "Above 1, characters that occur in the prompt or the text become less likely. Default 1.",
    )
    frequency_penalty: float | None = ranged(
        "frequency_penalty", "Subtracted from a character's logit for each time it was generated. Default 0."
    )
    presence_penalty: float | None = ranged(
        "presence_penalty", "Subtracted from a character's logit once it was generated. Default 0."
    )
    n: int | None = Field(None, ge=1, description="Texts to write; at most CHARLOOM_MAX_N. Default 1.")
    stream: bool | None = Field(
        None, description="Send the text as server-sent events while it is written. Default false."
    )
    seed: Seed | None = Field(
        None,
        description="The same seed, model and request give the same text. Without a seed, a random one is "
        "chosen and reported.",
    )
    stop: Stop | None = Field(
        None, description="The text ends before any of these strings; at most CHARLOOM_MAX_STOP strings."
    )
    model: str | None = Field(
        None,
        description="`run`, `run@step` or `run@best`; by default CHARLOOM_MODEL, or the newest of the run "
        "that trained last.",
    )
    unknown: Unknown | None = unknown_mode()


class GenerateBody(GenerateRequest):
    """The JSON body, in which a quoted number is not a number."""

    logit_bias: dict[Annotated[str, StringConstraints(min_length=1, max_length=1)], Bias] | None = Field(
        None, description="Added to the logits of these characters: -100 forbids one, 100 forces it."
    )

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "examples": [{"prompt": "ROMEO:", "length": 200, "temperature": 0.7, "seed": 7, "stop": ["\n\n"]}]
        },
    )


class Losses(BaseModel):
    """Losses of a checkpoint, nats per character; null where not measured."""

    loss: float | None = Field(None, description="Loss of the last window before the checkpoint.")
    smooth_loss: float | None = Field(
        None, description="Running mean of the training loss, weighted by age only."
    )
    best_loss: float | None = Field(None, description="The lowest loss so far, by the run's own measure.")


class Choice(BaseModel):
    """One of several texts."""

    text: str
    length: int = Field(description="Number of characters written.")
    finish_reason: Literal["length", "stop"]


class GenerateResponse(BaseModel):
    """A text, and everything that is needed to generate it again."""

    text: str = Field(description="The generated text, without the prompt.")
    prompt: str
    length: int = Field(description="Number of characters written.")
    finish_reason: Literal["length", "stop"]
    seed: int
    model: str = Field(
        description="The checkpoint, as `run@step`; send it as `model` to use the same checkpoint again."
    )
    step: int = Field(description="Number of updates that the network was trained for.")
    digest: str = Field(description="sha256 of the checkpoint.")
    losses: Losses
    choices: list[Choice] | None = Field(
        None, description="All texts, if `n` is above 1; `text` is the first of them."
    )
    changed_characters: int | None = Field(
        None,
        description="Number of characters of the prompt that were dropped or replaced, if that was allowed.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "text": "\nWhat, shall I speak of thee?",
                    "prompt": "ROMEO:",
                    "length": 28,
                    "finish_reason": "stop",
                    "seed": 7,
                    "model": "gru@6000",
                    "step": 6000,
                    "digest": "6f1c0e…",
                    "losses": {"loss": 1.31, "smooth_loss": 1.34, "best_loss": 1.49},
                }
            ]
        }
    )


class ScoreRequest(BaseModel):
    """The text to score; null is the same as absent."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"text": "What light through yonder window breaks?", "top": 3}]},
    )

    text: str = Field(
        min_length=1, description="At most CHARLOOM_MAX_PROMPT characters, including those of `prompt`."
    )
    prompt: str | None = Field(None, description="What precedes the text; read, but not scored.")
    unknown: Unknown | None = unknown_mode()
    model: str | None = Field(None, description="`run`, `run@step` or `run@best`; by default the newest.")
    models: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="Several models, at most CHARLOOM_MAX_MODELS, instead of `model`."
    )
    top: Annotated[int, Field(ge=0, le=5)] | None = Field(
        None, description="How many of the most likely characters to list for each position."
    )


class ModelScore(BaseModel):
    """The score by one model. Log-probabilities are natural logarithms; unknown values are null.

    Without a prompt, the first character has no probability.
    """

    model: str
    step: int
    digest: str
    error: str | None = Field(None, description="Why there is no score.")
    text: str | None = Field(
        None, description="The text as this model read it, where characters were changed."
    )
    changed_characters: int | None = Field(
        None, description="Number of characters of prompt and text that were dropped or replaced, if allowed."
    )
    bits: float | None = Field(None, description="Minus the sum of the log-probabilities, base 2.")
    bits_per_character: float | None = None
    nats_per_character: float | None = Field(None, description="The same measure as the training loss.")
    logprobs: list[float | None] | None = Field(
        None, description="One log-probability for each character of the text."
    )
    ranks: list[int | None] | None = Field(
        None, description="1 for the most likely character at that position, 2 for the next, …"
    )
    top: list[dict[str, float] | None] | None = Field(
        None, description="The most likely characters at each position, with their log-probabilities."
    )


class ScoreResponse(BaseModel):
    """The scores, in the order in which the models were given."""

    text: str
    prompt: str
    likeliest: str | None = Field(description="The model with the fewest bits.")
    scores: list[ModelScore]


class ActivationsRequest(BaseModel):
    """A text, and the unit whose output to show along it; null is the same as absent."""

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
    unknown: Unknown | None = unknown_mode()
    model: str | None = Field(None, description="`run`, `run@step` or `run@best`; by default the newest.")
    layer: int | None = Field(None, ge=0, description="Number of the layer; 0 reads the characters.")
    unit: int | None = Field(
        None,
        ge=0,
        description="Number of the unit, from 0. Without layer and unit: the one that correlates most "
        "closely with a feature.",
    )


class FollowerInfo(BaseModel):
    """The unit that correlates most closely with a feature of the text."""

    feature: str
    layer: int
    unit: int
    correlation: float = Field(description="Pearson correlation over the second half of this text; -1 to 1.")


class ActivationsResponse(BaseModel):
    """The output of one unit along a text."""

    text: str = Field(description="The text as the model read it.")
    model: str
    step: int
    digest: str
    cell: str
    layers: int
    hidden: int = Field(description="Units per layer.")
    layer: int
    unit: int
    values: list[float] = Field(description="The unit's output after each character; -1 to 1.")
    followers: list[FollowerInfo] = Field(
        description="For each feature that varies enough in this text, the unit that correlates best with it "
        "in the first half, if the second half confirms it; best first."
    )
    changed_characters: int | None = Field(
        None,
        description="Number of characters of the text that were dropped or replaced, if that was allowed.",
    )
