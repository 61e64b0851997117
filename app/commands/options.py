"""One command-line option for each field of a run, made from RunConfig, so that none can be forgotten."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from model.config import CHOICES, PRESETS, RunConfig

DESCRIPTIONS = {
    "cell": "Recurrent cell",
    "hidden": "Hidden units a layer",
    "layers": "Stacked layers",
    "embedding": "Length of the vector learnt for each character, 0 for one-hot input",
    "members": "Networks trained side by side, whose predictions are averaged",
    "initialisation": "How weights are drawn",
    "initial_scale": "Standard deviation (normal), or factor of 1/sqrt(hidden) (uniform)",
    "sequence_length": "Characters back through which a gradient goes",
    "streams": "Places of the text read side by side",
    "shards": "Parts of a batch worked on at once, each on a core of its own",
    "steps": "Updates in all",
    "minutes": "End by time instead of steps",
    "reduction": "Loss of a sequence",
    "optimizer": "Optimiser",
    "learning_rate": "Highest learning rate",
    "beta1": "Adam's decay of the mean gradient",
    "beta2": "Adam's decay of the mean squared gradient",
    "weight_decay": "Decoupled weight decay of AdamW",
    "clip": "How gradients are clipped",
    "clip_at": "Limit for clipping",
    "schedule": "Course of the learning rate",
    "warmup": "Part of the run in which the rate rises",
    "final_learning_rate": "Part of the rate that is left at the end",
    "validation_fraction": "Part of the text held out",
    "validate_every": "Steps between held-out losses, 0 for none",
    "record_every": "Steps between points of the loss curve",
    "smoothing": "Share of the old value in the running mean of the loss",
    "checkpoint_every": "Steps between checkpoints",
    "best_by": "Loss by which the best model is kept",
    "sample_every": "Steps between samples, 0 for none",
    "sample_length": "Characters a sample",
    "sample_temperature": "Temperature of the samples",
    "best_sample_length": "Characters of the best model's passage at the end, 0 for none",
    "seed": "Seed of weights and samples",
}
PANEL = "The run's settings (default: the preset's)"


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with an option for each field of RunConfig but `preset`; gets those used as `overrides`."""
    hints = get_type_hints(RunConfig)
    del hints["preset"]

    @functools.wraps(command)
    def with_overrides(**arguments: Any) -> None:
        values = {name: arguments.pop(name) for name in hints}
        command(**arguments, overrides={name: value for name, value in values.items() if value is not None})

    signature = inspect.signature(command, eval_str=True)
    parameters = [p for p in signature.parameters.values() if p.name != "overrides"]
    for name, kind in hints.items():
        choices = "|".join(CHOICES[name]) if name in CHOICES else None
        option = typer.Option(help=describe(name), metavar=choices, rich_help_panel=PANEL)
        annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        )
    vars(with_overrides)["__signature__"] = signature.replace(parameters=parameters)
    with_overrides.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_overrides


def describe(name: str) -> str:
    """What the option sets, and each preset's value."""
    presets = ", ".join(f"{preset} {getattr(config, name)}" for preset, config in PRESETS.items())
    return f"{DESCRIPTIONS[name]} ({presets})."
