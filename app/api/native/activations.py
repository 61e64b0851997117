"""POST /activations: the output of a hidden unit along a text, and the units that track its features."""

from __future__ import annotations

from dataclasses import asdict

import anyio.to_thread
from fastapi import APIRouter

from app.api.native.text_schemas import ActivationsRequest, ActivationsResponse, FollowerInfo
from app.api.openapi import errors
from app.api.services import Services, ServicesDep
from app.engine.loaded_model import LoadedModel
from app.engine.unknown import readable
from app.errors import InvalidRequestError, UnknownInFieldError
from model.errors import UnknownCharacterError
from model.units import activations, followers

PASSAGE = 1_000  # characters of the default text
LARGEST = 1 << 24  # maximum of characters times units: 64 MB of outputs
RETRY_SECONDS = 2.0

router = APIRouter(tags=["text"])


@router.post(
    "/activations",
    summary="What does a hidden unit do along a text?",
    response_model_exclude_none=True,
    responses=errors(400, 404, 413, 422, 503),
)
async def unit_activations(services: ServicesDep, asked: ActivationsRequest) -> ActivationsResponse:
    """The output of one hidden unit after every character of a text.

    Also, for each feature that a reader could track (an open quotation, the position in the line, capitals,
    …), the unit of the whole network that correlates with it most closely in this text.
    """
    limit = services.settings.max_prompt
    if asked.text is not None and len(asked.text) > limit:
        raise InvalidRequestError("text", f"must have at most {limit} characters. Given: {len(asked.text)}")
    model = await services.model(asked.model)
    services.readers.take(RETRY_SECONDS)
    try:
        # one at a time, to leave the processor to generation
        return await anyio.to_thread.run_sync(_read, services, model, asked, limiter=services.reading)
    finally:
        services.readers.give_back()


def _read(services: Services, model: LoadedModel, asked: ActivationsRequest) -> ActivationsResponse:
    config, text = model.network.config, asked.text
    for name, value, size in (("layer", asked.layer, config.layers), ("unit", asked.unit, config.hidden)):
        if value is not None and value >= size:
            raise InvalidRequestError(name, f"must be from 0 to {size - 1} in {model.id}. Given: {value}")
    longest = max(1, LARGEST // (config.layers * config.hidden))
    if text is None:
        text = services.run(model.run).text_end(min(PASSAGE, longest, services.settings.max_prompt))
    how = asked.unknown or services.settings.unknown
    try:
        text, changed = readable(text, model.vocabulary, how)
    except UnknownCharacterError as error:
        raise UnknownInFieldError(error.unknown, "text", model.id) from None
    if not text:
        raise InvalidRequestError("text", f"has no character that {model.id} knows")
    if len(text) > longest:
        raise InvalidRequestError(
            "text",
            f"must have at most {longest:,} characters for the {config.layers * config.hidden:,} units of "
            f"{model.id}. Given: {len(text):,}",
        )
    values = activations(model.network, model.vocabulary.encode(text))
    found = followers(values, text)
    layer, unit = asked.layer, asked.unit
    if layer is None and unit is None and found:
        layer, unit = found[0].layer, found[0].unit
    layer, unit = layer or 0, unit or 0
    return ActivationsResponse(
        text=text,
        model=model.id,
        step=model.step,
        digest=model.digest,
        cell=config.cell,
        layers=config.layers,
        hidden=config.hidden,
        layer=layer,
        unit=unit,
        values=[round(float(value), 4) for value in values[:, layer, unit]],
        followers=[FollowerInfo(**asdict(follower)) for follower in found],
        changed_characters=None if how == "refuse" else changed,
    )
