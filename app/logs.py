"""Log lines on standard error, for people or for machines."""

from __future__ import annotations

import logging
import logging.config
import sys

import structlog
from structlog.typing import EventDict, Processor

from app.settings import Settings
from app.streams import visible


def configure_logging(settings: Settings) -> None:
    """Every logger, of the standard library or structlog's, in one format on standard error."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        _without_second_message,
        structlog.processors.TimeStamper(fmt="iso", utc=settings.log_format == "json"),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderers: list[Processor]
    if settings.log_format == "json":
        # without local variables: they would take seconds to format and hold what people wrote
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderers = [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback
        console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
        renderers = [without_controls, console]
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)


def without_controls(logger: object, method: str, event: EventDict) -> EventDict:
    """Every text of a log line with its control characters as escapes: a request's path may hold any.

    A line end too, but in a traceback, or a path could forge a line of its own.
    """
    for key, value in event.items():
        if isinstance(value, str):
            shown = visible(value)
            event[key] = shown if key == "exception" else shown.replace("\n", "\\n")
    return event


def _without_second_message(logger: object, method: str, event: EventDict) -> EventDict:
    """uvicorn sends each message twice, the second time with escapes for a terminal."""
    event.pop("color_message", None)
    return event
