"""The services that the routes use, built once per application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import anyio
from anyio import CapacityLimiter
from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from app.api.assets import Assets
from app.engine.engine import Engine
from app.engine.loaded_model import LoadedModel
from app.engine.models import ModelStore
from app.errors import ModelNotFoundError, RunNotFoundError
from app.reports.gradchecks import GradientChecks
from app.reports.renderer import Renderer
from app.server.metrics import Metrics
from app.server.once import Once
from app.server.ranges import KnownSizes
from app.settings import Settings
from app.slots import Downloads, Slots, UploadSlots, Watchers
from app.store.checkpoints import parse_model_name
from app.store.loss_curves import Curves
from app.store.recent import Recent
from app.store.run import Run
from app.store.run_store import RunStore
from app.store.space import Limits
from app.store.uploads import UploadedFiles

Result = TypeVar("Result")
EXPORTED = 1024  # exports whose sizes are known
PLACEHOLDERS = ("", "dummy", "tgi")  # sent by clients that do not know a model's name


@dataclass(frozen=True)
class Services:
    """The services of one application."""

    settings: Settings
    runs: RunStore
    files: UploadedFiles
    limits: Limits
    models: ModelStore
    engine: Engine
    streams: Slots
    watchers: Watchers
    metrics: Metrics
    curves: Curves
    looks: Recent[Any]
    renderer: Renderer
    gradchecks: GradientChecks
    assets: Assets
    passages: Once
    reading: CapacityLimiter
    readers: Slots
    uploads: UploadSlots
    downloads: Downloads
    answers: Downloads
    making: CapacityLimiter
    packing: CapacityLimiter
    changing: CapacityLimiter
    exported: KnownSizes = field(default_factory=lambda: KnownSizes(EXPORTED))

    async def model(self, name: str | None) -> LoadedModel:
        """The model with this name; if it must be read from disk, that happens in another thread."""
        known = self.models.peek(name)
        return known if known is not None else await run_in_threadpool(self.models.get, name)

    async def model_of_client(self, name: str | None, tgi: bool = False) -> LoadedModel:
        """The same for clients of other APIs, whose placeholders mean the default model.

        These are PLACEHOLDERS, URLs (the server's own) and, from TGI's clients, ids of repositories.
        """
        if name and (name.startswith(("http://", "https://")) or (tgi and "/" in name)):
            name = None
        try:
            return await self.model(name)
        except ModelNotFoundError:
            if name in PLACEHOLDERS:  # a run with such a name takes precedence
                return self.models.current
            raise

    def run(self, name: str | None) -> Run:
        """The run with this name (of `run@step`, the run), or the one being served. Reads the disk."""
        if name:
            return self.runs.get(parse_model_name(name).run)
        try:
            return self.runs.get(self.models.current.run)
        except RunNotFoundError:  # deleted since the last look
            self.models.refresh()
            return self.runs.get(self.models.current.run)


async def services(request: Request) -> Services:
    """The dependency that gives a route the application's services."""
    found: Services = request.app.state.services
    return found


ServicesDep = Annotated[Services, Depends(services)]


async def in_turn(services: Services, work: Callable[[], Result]) -> Result:
    """The result of `work`, one upload at a time, because examining a text takes memory and a whole core."""
    return await anyio.to_thread.run_sync(work, limiter=services.making)


async def change_in_turn(services: Services, work: Callable[[], Result]) -> Result:
    """The result of `work`, one change of a run at a time, so that waiting changes occupy no threads."""
    return await anyio.to_thread.run_sync(work, limiter=services.changing)
