"""Log lines on standard error, as text or JSON."""

from __future__ import annotations

import io
import logging
import logging.config
import os
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor

from app.settings import Settings, unknown_variables
from app.streams import visible


def configure_logging(settings: Settings) -> None:
    """Send the standard library's and structlog's loggers to standard error in one format."""
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
        # no local variables: formatting them can take seconds, and they may hold users' texts
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderers = [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    else:
        colors = sys.stderr.isatty()
        renderers = [
            without_controls,
            structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=traceback),
        ]
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for message in unknown_variables(os.environ):
        logging.getLogger(__name__).warning("%s", message)


def without_controls(logger: object, method: str, event: EventDict) -> EventDict:
    """Escape control characters in every string of a log line: a request's path may contain any.

    Line feeds are escaped too, except in tracebacks; otherwise a path could forge a log line.
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


def traceback(stream: TextIO, exception: ExcInfo) -> None:
    """A plain traceback with control characters escaped: the error's message may hold a client's input."""
    written = io.StringIO()
    structlog.dev.plain_traceback(written, exception)
    stream.write(visible(written.getvalue()))
