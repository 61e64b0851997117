"""POST /runs, /runs/check and /runs/{name}/fork: queue a run on a text or from a checkpoint."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from app.api.native.run_schemas import RunAccepted, TextChecked
from app.api.openapi import errors
from app.api.services import Services, ServicesDep, in_turn
from app.intake.findings import as_details
from app.intake.new_runs import Made, check, fork, new_run
from app.intake.planning import expected_seconds
from app.server.auth import Right, needs
from app.server.upload_body import received
from app.store.run_store import default_name
from model.config import SETTINGS, Setting

router = APIRouter(tags=["training"], dependencies=[Depends(needs(Right.TRAIN))])

KINDS = {int: "integer", float: "number", str: "string"}


def option_schemas() -> dict[str, dict[str, Any]]:
    """JSON schemas of the options, which may be in the query or in the body."""
    schemas: dict[str, dict[str, Any]] = {
        "name": {"type": "string", "description": "Name of the run; by default that of the text's file."},
        "encoding": {
            "type": "string",
            "description": "Encoding of the text, if it is not UTF-8, such as `cp1252`; any that Python "
            "knows.",
        },
        "licence": {
            "type": "string",
            "description": "License of the text, for the card of an exported model.",
        },
        "priority": {"type": "integer", "description": "Runs of higher priority are trained first."},
        "epochs": {"type": "number", "description": "Number of passes over the text, instead of `steps`."},
        "apart": {
            "type": "boolean",
            "description": "Train each of the `members` as a separate run, and merge them at the end.",
        },
    }
    return schemas | {name: setting_schema(setting) for name, setting in SETTINGS.items()}


def setting_schema(setting: Setting) -> dict[str, Any]:
    """The JSON schema of one setting of a run."""
    schema: dict[str, Any] = {"type": KINDS[setting.kind], "description": f"{setting.help}."}
    if setting.kind is not str:
        schema |= {"minimum": setting.low, "maximum": setting.high}
    elif setting.choices:
        schema["enum"] = list(setting.choices)
    return schema


def documented(more: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Parameters and bodies for the OpenAPI document: FastAPI does not know about streamed uploads."""
    options = option_schemas() | more
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in options.items()
    ]
    text = {"type": "string", "description": "A plain text."}
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    content = {
        "text/plain": {"schema": text},
        "application/zip": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {"schema": {"type": "object", "properties": {"file": files, **options}}},
        "application/json": {"schema": {"type": "object", "properties": {"text": text, **options}}},
        "application/x-www-form-urlencoded": {
            "schema": {"type": "object", "properties": {"text": text, **options}}
        },
    }
    return {"parameters": parameters, "requestBody": {"content": content, "required": False}}


@router.post(
    "/runs",
    status_code=202,
    summary="Train on a text",
    responses=errors(400, 403, 404, 409, 413, 422, 503, 507),
    openapi_extra=documented({}),
)
async def create(request: Request, response: Response, services: ServicesDep) -> RunAccepted:
    """Queue a run on your own text, sent raw, in a form, as files of a form, or in JSON.

    A zip counts as its files, and a document (Word, OpenDocument, EPUB, HTML, RTF, PDF, subtitles, notebook)
    as its text.

    Every setting of a run can be given as well, in the query or in the body. A text that cannot be used is
    refused with all findings; otherwise the answer has any warnings.
    """
    async with received(request, services.settings.max_body_bytes, services.uploads) as upload:
        made = await in_turn(
            services, partial(new_run, services.runs, upload.options, upload.sources, services.limits)
        )
    return accepted(response, made, services)


@router.post(
    "/runs/check",
    summary="Check a text first",
    responses=errors(400, 403, 404, 409, 413, 422, 503, 507),
    openapi_extra=documented({}),
)
async def check_text(request: Request, services: ServicesDep) -> TextChecked:
    """The same upload as for `/runs`, without training.

    The answer has the findings about the text, and the run that it would start.
    """
    async with received(request, services.settings.max_body_bytes, services.uploads) as upload:
        work = partial(check, services.runs, upload.options, upload.sources, services.limits)
        checked = await in_turn(services, work)
    read, config, (low, high) = checked.read, checked.config, checked.expected_loss
    return TextChecked(
        name=str(upload.options.get("name") or default_name(read.text.name)),
        corpus=read.text.name,
        characters=read.text.characters,
        distinct_characters=read.distinct,
        cell=config.cell,
        hidden=config.hidden,
        layers=config.layers,
        members=config.members,
        expected_seconds=round(expected_seconds(config, read.distinct), 1),
        expected_loss=[round(low, 3), round(high, 3)],
        beginning=checked.beginning,
        findings=as_details(read.findings),
    )


@router.post(
    "/runs/{name}/fork",
    status_code=202,
    summary="Fork a run from a checkpoint",
    responses=errors(400, 403, 404, 409, 413, 422, 503, 507),
    openapi_extra=documented(
        {"step": {"type": "string", "description": "A step, or `best`; by default the newest."}}
    ),
)
async def create_fork(name: str, request: Request, response: Response, services: ServicesDep) -> RunAccepted:
    """Start a run with the weights of another, with changed settings or another text.

    Characters that are new to the network get new weights. Sizes cannot change.
    """
    async with received(request, services.settings.max_body_bytes, services.uploads) as upload:
        work = partial(fork, services.runs, name, upload.options, upload.sources, services.limits)
        made = await in_turn(services, work)
    return accepted(response, made, services)


def accepted(response: Response, made: Made, services: Services) -> RunAccepted:
    """The answer to an upload, with the URL of the run in `Location`."""
    run = made.run
    response.headers["location"] = f"/runs/{run.name}"  # the middleware adds the prefix
    return RunAccepted(
        name=run.name,
        url=f"{services.settings.root_path.rstrip('/')}/runs/{run.name}",
        state="queued",
        corpus=run.spec.corpus_name,
        characters=run.spec.characters,
        distinct_characters=made.distinct,
        expected_seconds=round(made.seconds, 1),
        findings=as_details(made.findings),
    )
