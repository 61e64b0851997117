"""`charloom generate`: writes the same text as the server would, with a model of the local store."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from threadpoolctl import threadpool_limits

from app.api.fields import LARGEST_SEED, SMALLEST_SEED
from app.engine.models import ModelStore
from app.engine.unknown import plain_stops, readable
from app.intake.findings import counted
from app.settings import Settings
from app.store.run_store import RunStore
from app.streams import visible
from model.errors import ConfigError
from model.generation import generate as generate_text
from model.sampling import SamplingConfig

LONGEST = 1_000_000  # characters, which are held in memory until the text is complete


def generate(
    settings: Settings,
    prompt: str,
    length: int,
    sampling: SamplingConfig,
    seed: int,
    stop: Sequence[str],
) -> None:
    """Print the prompt and its continuation; print checkpoint and seed on standard error.

    Raises ModelNotFoundError, NotReadyError, UnknownCharacterError, ConfigError.
    """
    if not 1 <= length <= LONGEST:
        raise ConfigError("length", f"must be between 1 and {LONGEST:,}. Given: {length}")
    if not SMALLEST_SEED <= seed <= LARGEST_SEED:
        raise ConfigError("seed", f"must be between {SMALLEST_SEED} and {LARGEST_SEED}. Given: {seed}")
    models = ModelStore(RunStore(settings.store))
    models.refresh()
    loaded = models.get(settings.model or None)
    prompt, changed = readable(prompt, loaded.vocabulary, settings.unknown)
    stop = plain_stops(stop, loaded.vocabulary)
    with threadpool_limits(1):
        result = generate_text(loaded.network, loaded.vocabulary, prompt, length, sampling, seed, stop)
    # a file or pipe gets the text unchanged
    text = prompt + result.text
    print(visible(text) if sys.stdout.isatty() else text)
    told = f", {counted(changed, 'character')} of the prompt changed" if changed else ""
    print(f"{loaded.id}, seed {seed}, ended by {result.finish_reason}{told}", file=sys.stderr)
