"""vLLM's tokenizer routes. A token is a character, and its id is its position in the vocabulary."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool

from app.api.fields import Only, unknown_mode
from app.api.openai.answers import joined
from app.api.openai.schemas import CHANGED, DEFAULT_ONLY, FORBIDDING, NO_EFFECT, Message
from app.api.openapi import openai_errors
from app.api.services import ServicesDep
from app.engine.loaded_model import LoadedModel
from app.engine.unknown import Unknown, readable
from app.errors import InvalidRequestError, UnknownInFieldError, shortened
from app.settings import Settings
from model.errors import UnknownCharacterError
from model.generation import start_character

ERRORS = openai_errors(400, 404, 413, 503)
TEMPLATE = "{{ messages | map(attribute='content') | join('\\n') }}"

router = APIRouter(tags=["OpenAI"])


class TokenizeRequest(BaseModel):
    """A text, or the messages of a chat."""

    model_config = FORBIDDING

    model: str | None = Field(None, description="`run`, `run@step` or `run@best`; by default the newest.")
    prompt: str | None = None
    messages: list[Message] | None = None
    return_token_strs: bool | None = Field(None, description="Whether the answer lists the characters.")
    unknown: Unknown | None = unknown_mode()
    add_special_tokens: bool | None = Field(None, description=f"{NO_EFFECT} There are none.")
    add_generation_prompt: bool | None = Field(None, description=NO_EFFECT)
    continue_final_message: Annotated[Any, Only(False)] = Field(None, description=DEFAULT_ONLY)
    chat_template: Annotated[Any, Only()] = Field(None, description=DEFAULT_ONLY)
    chat_template_kwargs: Annotated[Any, Only({})] = Field(None, description=DEFAULT_ONLY)
    tools: Annotated[Any, Only([])] = Field(None, description=DEFAULT_ONLY)


class TokenizeResponse(BaseModel):
    """Ids of the characters."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None
    changed_characters: int | None = CHANGED


class DetokenizeRequest(BaseModel):
    """Ids of characters."""

    model_config = FORBIDDING

    model: str | None = Field(None, description="`run`, `run@step` or `run@best`; by default the newest.")
    tokens: list[int]


class DetokenizeResponse(BaseModel):
    """The text of the ids."""

    prompt: str


class TokenizerInfo(BaseModel):
    """The tokenizer in the form of a tokenizer_config.json; an empty prompt starts from `bos_token`."""

    tokenizer_class: str = "CharacterTokenizer"
    bos_token: str
    eos_token: str = Field(description="The same as `bos_token`: there is no end-of-text character.")
    pad_token: None = None
    unk_token: None = None
    chat_template: str
    model_max_length: int
    vocab_size: int


@router.post("/tokenize", summary="Ids of characters", response_model=TokenizeResponse, responses=ERRORS)
async def tokenize(services: ServicesDep, asked: TokenizeRequest) -> Response:
    """For clients of vLLM. The text may be longer than CHARLOOM_MAX_PROMPT."""
    model = await services.model_of_client(asked.model)
    if (asked.prompt is None) == (asked.messages is None):
        raise InvalidRequestError("prompt", "or messages is required, but not both")
    return await run_in_threadpool(_tokenize, services.settings, model, asked)


@router.post("/detokenize", summary="Characters of ids", responses=ERRORS)
async def detokenize(services: ServicesDep, asked: DetokenizeRequest) -> DetokenizeResponse:
    """For clients of vLLM."""
    model = await services.model_of_client(asked.model)
    return await run_in_threadpool(_detokenize, model, asked.tokens)


@router.get("/tokenizer_info", summary="About the tokenizer", responses=ERRORS)
async def tokenizer_info(services: ServicesDep, model: str | None = None) -> TokenizerInfo:
    """For clients of vLLM."""
    found = await services.model_of_client(model)
    start = start_character(found.vocabulary)
    return TokenizerInfo(
        bos_token=start,
        eos_token=start,
        chat_template=TEMPLATE,
        model_max_length=_longest(services.settings),
        vocab_size=len(found.vocabulary),
    )


def _tokenize(settings: Settings, model: LoadedModel, asked: TokenizeRequest) -> Response:
    field, text = "prompt", asked.prompt or ""
    if asked.messages is not None:
        field, text = "messages", joined(asked.messages, model.vocabulary)
    how = asked.unknown or settings.unknown
    try:
        text, changed = readable(text, model.vocabulary, how)
        tokens = model.vocabulary.encode(text).tolist()
    except UnknownCharacterError as error:
        raise UnknownInFieldError(error.unknown, field, model.id) from None
    content = {
        "count": len(tokens),
        "max_model_len": _longest(settings),
        "tokens": tokens,
        "token_strs": list(text) if asked.return_token_strs else None,
    }
    if how != "refuse":
        content["changed_characters"] = changed
    return Response(to_json(content), media_type="application/json")


def _detokenize(model: LoadedModel, tokens: list[int]) -> DetokenizeResponse:
    size = len(model.vocabulary)
    for token in tokens:
        if not 0 <= token < size:
            limit = f"must hold ids from 0 to {size - 1}, of {model.id}"
            raise InvalidRequestError("tokens", f"{limit}. Given: {shortened(token)}")
    return DetokenizeResponse(prompt=model.vocabulary.decode(tokens))


def _longest(settings: Settings) -> int:
    return settings.max_prompt + settings.max_length
