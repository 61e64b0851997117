"""The FastAPI application, and the server that runs it: time limits, load shedding, shutdown."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import cast

import uvicorn
from anyio import CapacityLimiter
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from app.api.assets import Assets
from app.api.direct import DirectRoutes
from app.api.native import (
    activations,
    archives,
    generate,
    gradcheck,
    health,
    loss_curve,
    merges,
    metrics,
    pages,
    report,
    run_events,
    run_text,
    runs,
    score,
    uploads,
)
from app.api.openai import chat, completions, files, fine_tuning, models, tokens
from app.api.openapi import CONTACT, DESCRIPTION, LICENSE, TAGS, complete_openapi
from app.api.services import Services
from app.api.shedding import Shedding
from app.api.tgi import info
from app.api.tgi import routes as tgi
from app.engine.engine import Engine
from app.engine.models import ModelStore
from app.errors import ModelNotFoundError
from app.reports.gradchecks import GradientChecks
from app.reports.renderer import Renderer
from app.server.auth import OPEN, ApiKeys, RateLimit, read_keys, read_limits
from app.server.error_formats import Family, mark, respond
from app.server.metrics import Metrics
from app.server.middleware import REQUEST_ID, BodyLimit, HeadAsGet, RequestContext
from app.server.once import Once
from app.server.origins import Origins
from app.server.prefix import Prefix, check_prefix
from app.server.problems import HTTP_CODES, TABLE, TGI_BODY, Problem, problem_of, validation_problem
from app.server.process import Server, most_connections
from app.server.protocol import bounded_http
from app.server.shared import Shared, nowhere
from app.settings import Settings, load_settings
from app.slots import Downloads, Slots, UploadSlots, Watchers
from app.store.loss_curves import Curves
from app.store.recent import Recent
from app.store.run_store import RunStore
from app.store.space import Budget, Limits
from app.store.uploads import UploadedFiles
from model.errors import ConfigError

ROUTES = (
    generate,
    score,
    activations,
    tgi,
    info,
    completions,
    chat,
    tokens,
    models,
    files,
    fine_tuning,
    runs,
    uploads,
    merges,
    archives,
    run_events,
    run_text,
    loss_curve,
    gradcheck,
    report,
    health,
    metrics,
    pages,
)

LOOK_SECONDS, LOOKS = 0.25, 256  # how long the state of a watched run is cached; for how many runs
READERS = 16  # activation requests in progress or waiting
PASSAGES = 512  # cached answers of a few hundred bytes each
DOWNLOADS = 16  # exports, reports and files being sent
LARGE_ANSWERS = 64  # each may hold some megabytes of log-probabilities until the client has read it
COLLECT_AFTER = (20_000, 50, 100)  # thresholds of the garbage collector's three generations
CLEARING_SECONDS = 600.0
TELEMETRY_OFF = TelemetryConfig(tracing=False, metrics=False, logs=False, auto_configure=False)

logger = logging.getLogger(__name__)


def create_app(settings: Settings | None = None, shared: Shared | None = None) -> FastAPI:
    """Build the application; `shared` connects it to the other processes of the same server.

    Without `settings`, reads them from the environment. Raises ConfigError.
    """
    settings = settings or load_settings()
    services = build_services(settings, shared)
    app = FastAPI(
        title="Charloom",
        summary="Text from a recurrent network that is still learning.",
        description=DESCRIPTION,
        version=version("charloom"),
        openapi_tags=TAGS,
        license_info=LICENSE,
        contact=CONTACT,
        servers=[{"url": settings.root_path.rstrip("/") or "/", "description": "this server"}],
        docs_url=None,
        redoc_url=None,
        telemetry=None if settings.telemetry else TELEMETRY_OFF,
        lifespan=lifespan,
    )
    app.state.services = services
    app.state.error_page = partial(pages.error_page, services.assets)
    for module in ROUTES:
        app.include_router(module.router)
    complete_openapi(app, OPEN, keys=bool(settings.api_keys.get_secret_value()))
    add_error_handlers(app)
    add_middleware(app, services, shared)
    return app


def build_server(
    settings: Settings, shared: Shared | None = None, *, uds: str | None = None, lifespan: bool = True
) -> Server:
    """Build the server that `charloom serve`, other commands and the tests run, each with its own sockets.

    Args:
        shared: state in common with the other processes of the same server.
        uds: path of a Unix socket to listen on instead.
        lifespan: whether to load checkpoints and run the engine; if not, only the store is served.
    Raises ConfigError.
    """
    app = create_app(settings, shared)
    services: Services = app.state.services
    http = bounded_http(settings.read_seconds, most_connections(), Shedding.of(services))
    config = uvicorn.Config(
        app,
        uds=uds,
        log_config=None,
        access_log=False,
        http=http,
        ws="none",
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        lifespan="on" if lifespan else "off",
        # `drain` ends requests after the grace; this timeout is for connections that hang
        timeout_graceful_shutdown=round(settings.grace_seconds) + 2,
    )
    return Server(config, partial(drain, services))


def add_middleware(app: FastAPI, services: Services, shared: Shared | None = None) -> None:
    """Add the middleware; a request passes the last one added first. Raises ConfigError."""
    settings = services.settings
    routes = [route for module in ROUTES for route in module.router.routes]
    app.add_middleware(DirectRoutes, services=services, routes=routes, handlers=app.exception_handlers)
    app.add_middleware(HeadAsGet)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, uploads=settings.max_corpus_bytes)
    if limits := read_limits(settings.rate_limit):
        app.add_middleware(RateLimit, limits=limits, shared=shared.counts if shared else None)
    if keys := read_keys(settings.api_keys.get_secret_value()):
        app.add_middleware(ApiKeys, keys=keys)
    origins = listed(settings.cors_origins)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=[REQUEST_ID, "retry-after", "retry-after-ms"],
        )
    if prefix := settings.root_path.rstrip("/"):
        check_prefix(prefix, [route.path for route in routes if isinstance(route, Route)])
        app.add_middleware(Prefix, prefix=prefix)
    app.add_middleware(Origins, hosts=[settings.host, *listed(settings.allowed_hosts)], origins=origins)
    app.add_middleware(RequestContext, access_log=settings.access_log, refused=services.metrics.refused)


def listed(setting: str) -> list[str]:
    """The items of a comma-separated setting."""
    return [part.strip() for part in setting.split(",") if part.strip()]


def build_services(settings: Settings, shared: Shared | None = None) -> Services:
    """Build the services without starting any. Raises ConfigError.

    Several processes divide the memory for models evenly and share the limits on concurrent requests.
    """
    places = shared.places if shared else nowhere
    results = shared.results if shared else nowhere
    run_store = RunStore(settings.store, settings.lease_seconds)
    limits = Limits(settings.max_corpus_bytes, settings.max_runs, Budget(run_store, settings.max_store_bytes))
    try:
        cache_bytes = settings.model_cache_bytes // (shared.processes if shared else 1)
        models = ModelStore(run_store, cache_bytes, settings.model or None)
    except ModelNotFoundError as error:
        raise ConfigError("model (CHARLOOM_MODEL)", f"is not usable: {error}") from None
    engine = Engine(settings.max_rows, settings.max_queue)
    return Services(
        settings=settings,
        runs=run_store,
        files=UploadedFiles(run_store, limits),
        limits=limits,
        models=models,
        engine=engine,
        streams=Slots(settings.max_streams, "streams are open", places("streams")),
        watchers=Watchers(settings.max_streams, places("watchers")),
        metrics=Metrics(engine, models, shared),
        curves=Curves(),
        looks=Recent(LOOK_SECONDS, LOOKS),
        renderer=Renderer(settings.plot_seconds, results("pictures")),
        gradchecks=GradientChecks(settings.gradcheck_seconds, results("gradchecks")),
        assets=Assets(settings.root_path.rstrip("/")),
        passages=Once(PASSAGES),
        reading=CapacityLimiter(1),
        readers=Slots(READERS, "activation requests are in progress", places("readers")),
        uploads=UploadSlots(settings.max_uploads, places("uploads")),
        downloads=Downloads(DOWNLOADS, "exports, reports and files are being sent", places("downloads")),
        answers=Downloads(LARGE_ANSWERS, "large answers are being prepared or sent", places("answers")),
        making=CapacityLimiter(1),
        packing=CapacityLimiter(1),
        changing=CapacityLimiter(1),
    )


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load a checkpoint before the first request, then poll for new ones until the server stops."""
    services: Services = app.state.services
    # the engine comes first: it sets the number of BLAS threads, which the choice of a decoder depends on
    services.engine.start()
    await look(services.models)
    settle()
    looking = asyncio.create_task(keep_looking(services))
    clearing = asyncio.create_task(keep_clear(services.runs))
    try:
        yield
    finally:
        for task in (looking, clearing):
            task.cancel()
        await asyncio.gather(looking, clearing, return_exceptions=True)
        await services.gradchecks.helper.close()
        await asyncio.to_thread(services.engine.stop)
        await services.renderer.helper.close()


def settle() -> None:
    """Exempt long-lived objects from garbage collection: without this, throughput is a quarter lower."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def drain(services: Services, immediately: bool) -> None:
    """Stop admitting work. Texts, downloads and pictures get the grace period; gradient checks do not."""
    grace = 0.0 if immediately else services.settings.grace_seconds
    services.engine.drain(grace)
    asyncio.get_running_loop().call_later(grace, services.renderer.helper.stop)
    services.downloads.end_within(grace)
    services.answers.end_within(grace)
    services.gradchecks.helper.stop()
    services.watchers.closing = True


async def keep_looking(services: Services) -> None:
    """Poll for new checkpoints until the server stops."""
    while True:
        await asyncio.sleep(services.settings.poll_seconds)
        await look(services.models)
        if services.metrics.shared:
            await asyncio.to_thread(services.metrics.note)


async def keep_clear(runs: RunStore) -> None:
    """Remove the files that killed processes left in the store, now and every ten minutes."""
    while True:
        try:
            await asyncio.to_thread(runs.clear_leftovers)
        except OSError as error:  # a read-only store
            logger.warning("temporary files of killed processes cannot be removed: %s", error)
        await asyncio.sleep(CLEARING_SECONDS)


async def look(models: ModelStore) -> None:
    """Check the store once, in another thread; on any error the current model stays in service."""
    try:
        await asyncio.to_thread(models.look)
    except OSError as error:
        logger.error("the store cannot be read: %s", error)
    except Exception:
        logger.exception("checking for a new checkpoint failed")


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error in the format of its route family, by the table in `app.server.problems`."""
    for kind, _, _ in TABLE:
        app.add_exception_handler(kind, on_known_error)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(HTTPException, on_http_error)


async def on_known_error(request: Request, error: Exception) -> Response:
    if isinstance(error, OSError):
        logger.error("%s %s: %s", request.method, request.url.path, error)
    return respond(problem_of(error), request.scope)


async def on_invalid_request(request: Request, error: Exception) -> Response:
    faults = cast(RequestValidationError, error).errors()
    if any(fault["loc"][1:2] == TGI_BODY for fault in faults):
        mark(request.scope, Family.TGI)
    return respond(validation_problem(faults), request.scope)


async def on_http_error(request: Request, error: Exception) -> Response:
    error = cast(HTTPException, error)
    code = HTTP_CODES.get(error.status_code, "http_error")
    messages = {
        404: f"there is nothing at {request.url.path}; see /docs",
        405: f"{request.method} is not allowed at {request.url.path}; see /docs",
    }
    message = messages.get(error.status_code, error.detail)
    if isinstance(error.__cause__, UnicodeDecodeError):
        wrong = error.__cause__
        message = f"the body is not UTF-8: byte 0x{wrong.object[wrong.start]:02x} at offset {wrong.start}"
    elif isinstance(error.__cause__, ValueError):
        message = f"the body cannot be read as JSON: {error.__cause__}"
    return respond(Problem(error.status_code, code, message), request.scope, error.headers)
