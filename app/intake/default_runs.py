"""The runs that a new store starts with."""

from __future__ import annotations

import logging
from pathlib import Path

from app.intake.findings import as_details, printable_name
from app.intake.planning import check_length
from app.intake.text import Contents, read_text
from app.settings import Settings
from app.store.run_store import RunStore
from model.config import DEFAULT_PRESET, PRESETS
from model.errors import TextError

DEFAULT_RUNS = ("classic", DEFAULT_PRESET)  # names of runs and of their presets, in queue order

logger = logging.getLogger(__name__)


def queue_defaults(store: RunStore, settings: Settings) -> None:
    """Queues the default runs on the configured text if the store has no runs.

    Several processes may call this at the same time. Raises TextError or OSError if the text cannot be used.
    """
    corpus = printable_name(settings.corpus.name)
    with store.lock(store.root / ".defaults.lock", 60):
        runs = store.list()
        if runs:
            corpora = {run.spec.corpus_name for run in runs}
            if "corpus" in settings.model_fields_set and corpus not in corpora:
                logger.warning(
                    "%s is ignored: it names the text of a new store, and %s has runs already; train on the "
                    "text with: charloom train %s",
                    settings.corpus,
                    store.root,
                    settings.corpus,
                )
            return
        text, findings = _read(settings.corpus)
        for name in DEFAULT_RUNS:
            check_length(PRESETS[name], len(text))
        for name in DEFAULT_RUNS:
            store.create(name, PRESETS[name], text, corpus, findings=as_details(findings))
        logger.info("queued %s on %s", " and ".join(DEFAULT_RUNS), settings.corpus)


def _read(corpus: Path) -> Contents:
    try:
        return read_text(corpus)
    except FileNotFoundError:
        raise TextError(
            f"there is no text at {corpus}: download the default text with `charloom corpus`, or name your "
            f"own with --corpus or CHARLOOM_CORPUS"
        ) from None
