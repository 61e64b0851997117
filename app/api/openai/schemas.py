"""The JSON of OpenAI's routes, as far as it applies to a character model. A token is a character."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.fields import Bias, Only, Seed, Stop, ranged, unknown_mode
from app.engine.unknown import Unknown

FORBIDDING = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
NO_EFFECT = "Accepted and ignored."
MOST_ALTERNATIVES = 20
CHANGED = Field(None, description="Number of characters that were dropped or replaced, if that was allowed.")
DEFAULT_ONLY = "Not supported; only the default is accepted."


class StreamOptions(BaseModel):
    """What a stream contains in addition to its text."""

    model_config = FORBIDDING

    include_usage: bool | None = Field(None, description="Whether to send a last chunk with `usage`.")
    include_obfuscation: bool | None = Field(None, description="Accepted and ignored.")
    continuous_usage_stats: bool | None = Field(
        None, description="Accepted and ignored; `usage` is sent at the end."
    )


class WritingRequest(BaseModel):
    """The fields that completions and chats share; null is the same as absent."""

    model_config = FORBIDDING

    model: str | None = Field(None, description="`run`, `run@step` or `run@best`; by default the newest.")
    max_tokens: int | None = Field(
        None, ge=0, description="Characters to write; by default CHARLOOM_DEFAULT_LENGTH."
    )
    temperature: float | None = ranged("temperature", "0 always takes the most likely character. Default 1.")
    top_p: float | None = ranged(
        "top_p",
        "Choose among the most likely characters that together reach this probability; 0 allows "
        "only the most likely. Default 1: all.",
    )
    top_k: int | None = ranged(
        "top_k", "Choose among the k most likely characters; 0 and -1 mean all, the default."
    )
    min_p: float | None = ranged(
        "min_p", "Choose among characters at least this fraction as likely as the most likely one."
    )
    typical_p: float | None = ranged(
        "typical_p",
        "Choose among the characters whose surprise is closest to the entropy and that together reach this "
        "probability. Default 1: all.",
    )
    repetition_penalty: float | None = ranged("repetition_penalty", "1, the default, turns it off.")
    frequency_penalty: float | None = ranged("frequency_penalty", "0, the default, turns it off.")
    presence_penalty: float | None = ranged("presence_penalty", "0, the default, turns it off.")
    logit_bias: dict[str, Bias] | None = Field(
        None, description="Added to the logits, by id as a string of digits."
    )
    n: int | None = Field(None, ge=1, description="Texts for each prompt. Default 1.")
    seed: Seed | None = Field(None, description="Random by default.")
    stop: Stop | None = Field(None, description="The text ends before any of these strings.")
    stream: bool | None = Field(None, description="Answer with server-sent events.")
    stream_options: StreamOptions | None = None
    unknown: Unknown | None = unknown_mode()
    user: str | None = Field(None, description=NO_EFFECT)
    metadata: dict[str, str] | None = Field(None, description=NO_EFFECT)
    safety_identifier: str | None = Field(None, description=NO_EFFECT)
    prompt_cache_key: str | None = Field(None, description=NO_EFFECT)
    prompt_cache_retention: str | None = Field(None, description=NO_EFFECT)
    service_tier: str | None = Field(None, description=NO_EFFECT)
    ignore_eos: bool | None = Field(None, description=f"{NO_EFFECT} There is no end-of-text character.")
    skip_special_tokens: bool | None = Field(None, description=NO_EFFECT)
    spaces_between_special_tokens: bool | None = Field(None, description=NO_EFFECT)
    add_special_tokens: bool | None = Field(None, description=NO_EFFECT)
    priority: int | None = Field(None, description=NO_EFFECT)
    request_id: str | None = Field(None, description=NO_EFFECT)
    cache_salt: str | None = Field(None, description=NO_EFFECT)
    store: Annotated[Any, Only(False)] = Field(None, description=DEFAULT_ONLY)
    response_format: Annotated[Any, Only({"type": "text"})] = Field(None, description=DEFAULT_ONLY)
    min_tokens: Annotated[Any, Only(0)] = Field(None, description=DEFAULT_ONLY)
    length_penalty: Annotated[Any, Only(1.0)] = Field(None, description=DEFAULT_ONLY)
    use_beam_search: Annotated[Any, Only(False)] = Field(None, description=DEFAULT_ONLY)
    include_stop_str_in_output: Annotated[Any, Only(False)] = Field(None, description=DEFAULT_ONLY)
    stop_token_ids: Annotated[Any, Only([])] = Field(None, description=DEFAULT_ONLY)
    bad_words: Annotated[Any, Only([])] = Field(None, description=DEFAULT_ONLY)
    allowed_token_ids: Annotated[Any, Only()] = Field(None, description=DEFAULT_ONLY)
    prompt_logprobs: Annotated[Any, Only()] = Field(None, description=DEFAULT_ONLY)
    truncate_prompt_tokens: Annotated[Any, Only()] = Field(None, description=DEFAULT_ONLY)
    return_tokens_as_token_ids: Annotated[Any, Only(False)] = Field(None, description=DEFAULT_ONLY)
    return_token_ids: Annotated[Any, Only(False)] = Field(None, description=DEFAULT_ONLY)
    structured_outputs: Annotated[Any, Only()] = Field(None, description=DEFAULT_ONLY)


class CompletionRequest(WritingRequest):
    """One prompt to continue, or several."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "ROMEO:", "max_tokens": 100, "temperature": 0.8, "seed": 7}]
        }
    )

    prompt: str | list[str] | list[int] | list[list[int]] | None = Field(
        None, description="Text, texts, or ids of characters."
    )
    best_of: int | None = Field(
        None,
        ge=1,
        description="Number of texts written for each prompt, of which the n most likely are returned.",
    )
    echo: bool | None = Field(None, description="Whether the answer starts with the prompt.")
    logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = Field(
        None, description="How many alternatives to list for each character; 0 lists only the character."
    )
    suffix: Annotated[Any, Only("")] = Field(
        None, description="Not supported: the network reads from left to right."
    )


class ContentPart(BaseModel):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message of a conversation. Other fields are ignored."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None


class ChatRequest(WritingRequest):
    """A conversation to continue: the texts of its messages are joined by line breaks."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"messages": [{"role": "user", "content": "ROMEO:"}], "seed": 7}]}
    )

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="The newer name of `max_tokens`.")
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = Field(
        None, description="With `logprobs`."
    )
    reasoning_effort: str | None = Field(None, description=NO_EFFECT)
    verbosity: str | None = Field(None, description=NO_EFFECT)
    parallel_tool_calls: bool | None = Field(None, description=f"{NO_EFFECT} There are no tools.")
    tool_prompt: str | None = Field(None, description=f"{NO_EFFECT} There are no tools.")
    add_generation_prompt: bool | None = Field(None, description=NO_EFFECT)
    prompt_cache_options: dict[str, Any] | None = Field(None, description=NO_EFFECT)
    moderation: Annotated[Any, Only()] = Field(None, description=DEFAULT_ONLY)
    tools: Annotated[Any, Only([])] = Field(None, description=DEFAULT_ONLY)
    tool_choice: Annotated[Any, Only("none", "auto")] = Field(None, description=DEFAULT_ONLY)
    functions: Annotated[Any, Only([])] = Field(None, description=DEFAULT_ONLY)
    function_call: Annotated[Any, Only("none", "auto")] = Field(None, description=DEFAULT_ONLY)
    modalities: Annotated[Any, Only(["text"])] = Field(None, description=DEFAULT_ONLY)
    audio: Annotated[Any, Only()] = Field(None, description=DEFAULT_ONLY)
    prediction: Annotated[Any, Only()] = Field(None, description=DEFAULT_ONLY)
    web_search_options: Annotated[Any, Only()] = Field(None, description=DEFAULT_ONLY)
    echo: Annotated[Any, Only(False)] = Field(None, description=DEFAULT_ONLY)
    continue_final_message: Annotated[Any, Only(False)] = Field(None, description=DEFAULT_ONLY)
    chat_template: Annotated[Any, Only()] = Field(None, description=DEFAULT_ONLY)
    chat_template_kwargs: Annotated[Any, Only({})] = Field(None, description=DEFAULT_ONLY)
    guideline: Annotated[Any, Only()] = Field(None, description=DEFAULT_ONLY)
    documents: Annotated[Any, Only([])] = Field(None, description=DEFAULT_ONLY)


class Usage(BaseModel):
    """Characters read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(BaseModel):
    """Natural logarithms of the network's probabilities, before temperature and filters."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One text; `index` is the prompt's index times n, plus the text's own."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(BaseModel):
    """Texts; `system_fingerprint` has the run, the step, the hash of the weights and the BLAS kernel."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    changed_characters: int | None = CHANGED
    seed: int = Field(description="Send it to get the same texts again.")
    choices: list[CompletionChoice]
    usage: Usage


class ChatAnswer(BaseModel):
    """The generated text as a message."""

    role: Literal["assistant"]
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """One text."""

    index: int
    message: ChatAnswer
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"] | None


class ChatCompletion(BaseModel):
    """Answers to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    changed_characters: int | None = CHANGED
    seed: int
    choices: list[ChatChoice]
    usage: Usage


class ModelCard(BaseModel):
    """A run with a checkpoint, or one checkpoint of it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "charloom"


class ModelCards(BaseModel):
    """The runs that have a checkpoint."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
