"""Merges checkpoints of independently trained networks of the same shape into one, an ensemble.

The merged network's logits are the mean of theirs, as in an ensemble trained together (`model/ensemble.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from model.cells import Array
from model.checkpoint import MAX_BYTES, Checkpoint
from model.config import RunConfig
from model.ensemble import member_config, merge, network_config
from model.errors import ConfigError
from model.network import Network

SHAPE = ("cell", "hidden", "layers", "embedding")  # settings that must be equal in all members


def merge_checkpoints(models: Mapping[str, Checkpoint], config: RunConfig | None = None) -> Checkpoint:
    """The ensemble of all networks of `models`, in this order.

    Its step is the highest one, its losses are the means over the members. Raises ConfigError if the models
    differ in shape or vocabulary, do not have their members' weights, or would become too large a checkpoint.

    Args:
        models: checkpoints by name; the names are for error messages.
        config: of the result; by default the first model's, with the number of members.
    """
    (first_name, first), *others = models.items()
    for name, other in others:
        _compare(first_name, first, name, other)
    counts = [model.config.members for model in models.values()]
    config = config or first.config.replace(members=sum(counts))
    parameters = _members(models, config, len(first.vocabulary))
    sizes = network_config(config, len(first.vocabulary))
    target = Network(sizes, np.zeros(sizes.size(), np.float32))
    single = member_config(config, len(first.vocabulary))
    merge([Network(single, row) for row in parameters], target)
    progress = {name: _mean(models, counts, name) for name in ("loss", "smooth_loss")}
    return Checkpoint(
        config=config,
        vocabulary=first.vocabulary,
        step=max(model.step for model in models.values()),
        parameters=target.flat,
        text_sha256=first.text_sha256,
        tensors={"members": parameters},
        progress={
            **progress,
            "seconds": max(model.progress.get("seconds", 0.0) for model in models.values()),
        },
    )


def member_networks(merged: Checkpoint) -> list[Network]:
    """The members of `merged`."""
    sizes = member_config(merged.config, len(merged.vocabulary))
    return [Network(sizes, row) for row in merged.tensors["members"]]


def _compare(first_name: str, first: Checkpoint, name: str, other: Checkpoint) -> None:
    """Raises ConfigError if two models cannot be in one ensemble."""
    for field in SHAPE:
        one, two = getattr(first.config, field), getattr(other.config, field)
        if one != two:
            raise ConfigError(
                field,
                f"is {one!r} in {first_name!r} and {two!r} in {name!r}: only networks of the same shape can "
                f"be merged",
            )
    if first.vocabulary != other.vocabulary:
        differing = set(first.vocabulary.characters) ^ set(other.vocabulary.characters)
        shown = ", ".join(map(repr, sorted(differing)[:10])) + (", …" if len(differing) > 10 else "")
        raise ConfigError(
            "vocabulary",
            f"differs: only one of {first_name!r} and {name!r} knows {shown}; only models with the same "
            f"characters can be merged",
        )


def _members(models: Mapping[str, Checkpoint], config: RunConfig, characters: int) -> Array:
    """The parameters of all members, (M, P). Raises ConfigError if some are missing or they are too large."""
    rows = []
    member_size = member_config(config, characters).size()
    for name, model in models.items():
        members = model.members()
        shape = (model.config.members, member_size)
        if members is None or members.shape != shape or members.dtype != np.float32:
            raise ConfigError(
                "models",
                f"must have the weights of each member; {name!r} has none, because it is a best checkpoint "
                f"of several members: merge another step of it",
            )
        rows.append(members)
    size = network_config(config, characters).size() + sum(part.size for part in rows)
    if 4 * size > MAX_BYTES:
        raise ConfigError(
            "models", f"would become a checkpoint of {4 * size:,} bytes; the limit is {MAX_BYTES:,}"
        )
    return np.concatenate(rows)


def _mean(models: Mapping[str, Checkpoint], counts: list[int], name: str) -> float | None:
    """The mean of a loss over the members; None if a model does not have it."""
    total = 0.0
    for model, count in zip(models.values(), counts, strict=True):
        loss = model.losses[name]
        if loss is None:
            return None
        total += loss * count
    return total / sum(counts)
