"""Command-line options generated from RunConfig, one for each setting of a run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from model.config import PRESETS, SETTINGS


def path_if_given(text: str) -> Path | None:
    """The path given as an option, or None for an empty one, such as an unset variable in a script."""
    return Path(text) if text else None


Store = Annotated[
    Path | None,
    typer.Option(help="Directory of the runs (CHARLOOM_STORE).", parser=path_if_given, metavar="PATH"),
]
APART_HELP = (
    "Train each member as a separate run, on any machine that shares the store, and merge them at the end."
)
FIRST = "minutes"  # the option that a beginner needs is listed first
PANEL = "Details of network and training (default: the preset's)"


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each setting except `preset`; `command` gets the given ones as `overrides`."""
    settings = {name: setting for name, setting in SETTINGS.items() if name != "preset"}

    @functools.wraps(command)
    def with_overrides(**arguments: Any) -> None:
        values = {name: arguments.pop(name) for name in settings}
        command(**arguments, overrides={name: value for name, value in values.items() if value is not None})

    signature = inspect.signature(command, eval_str=True)
    parameters = [p for p in signature.parameters.values() if p.name != "overrides"]
    for name, setting in settings.items():
        choices = "|".join(setting.choices) or None
        first = name == FIRST
        option = typer.Option(help=describe(name), metavar=choices, rich_help_panel=None if first else PANEL)
        annotation = Annotated[setting.kind | None, option]  # type: ignore[name-defined]
        place = inspect.Parameter.POSITIONAL_OR_KEYWORD if first else inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, place, default=None, annotation=annotation))
    empty = inspect.Parameter.empty
    parameters.sort(key=lambda one: (one.kind, one.default is not empty, one.name != FIRST))
    vars(with_overrides)["__signature__"] = signature.replace(parameters=parameters)
    with_overrides.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_overrides


def describe(name: str) -> str:
    """The help text of a setting's option, with the value of each preset."""
    if name == FIRST:
        return "Train for this many minutes, with settings that suit the text and this machine."
    presets = ", ".join(f"{preset} {getattr(config, name)}" for preset, config in PRESETS.items())
    return f"{SETTINGS[name].help} ({presets})."
