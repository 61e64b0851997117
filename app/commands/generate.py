"""`charloom generate`: a text from a model of the local store, the same that the server gives."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from threadpoolctl import threadpool_limits

from app.engine.models import ModelStore
from app.engine.unknown import readable
from app.settings import Settings
from app.store.run_store import RunStore
from model.errors import ConfigError
from model.generation import generate as generate_text
from model.sampling import SamplingConfig


def generate(
    settings: Settings,
    prompt: str,
    length: int,
    sampling: SamplingConfig,
    seed: int,
    stop: Sequence[str],
) -> None:
    """Print a text, and on standard error what wrote it.

    Raises ModelNotFoundError, NotReadyError, UnknownCharacterError, ConfigError.
    """
    if length < 1:
        raise ConfigError("length", f"must be at least 1. Given: {length}")
    models = ModelStore(RunStore(settings.store))
    models.refresh()
    loaded = models.get(settings.model or None)
    prompt, changed = readable(prompt, loaded.vocabulary, settings.unknown)
    with threadpool_limits(1):
        result = generate_text(loaded.network, loaded.vocabulary, prompt, length, sampling, seed, stop)
    print(result.text)
    told = f", {changed} characters of the prompt changed" if changed else ""
    print(f"{loaded.id}, seed {seed}, ended by {result.finish_reason}{told}", file=sys.stderr)
