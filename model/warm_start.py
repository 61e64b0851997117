"""Initialises a run with the weights of another run, whose vocabulary may be smaller."""

from __future__ import annotations

from model.cells import Array
from model.checkpoint import Checkpoint
from model.ensemble import member_config
from model.errors import ConfigError
from model.network import named_views
from model.vocabulary import Vocabulary

SIZES = ("cell", "hidden", "layers", "embedding", "members")  # settings that must be equal in both runs


def take_over(checkpoint: Checkpoint, vocabulary: Vocabulary, parameters: Array) -> None:
    """Writes the weights of `checkpoint` into the initialised `parameters` (M, P) of a run with `vocabulary`.

    A new character keeps its random row of U or E. Its column of V is 0, and its c is the lowest one of the
    checkpoint, so that the network's predictions hardly change. Raises ConfigError if `checkpoint` does not
    have the weights of the members, because it was saved only for serving.
    """
    old_rows = checkpoint.members()
    if old_rows is None:
        raise ConfigError(
            "step",
            "must be a checkpoint with the weights of every member; the best checkpoint has none: give "
            "another step",
        )
    known = vocabulary.encode(checkpoint.vocabulary.characters)
    old_sizes = member_config(checkpoint.config, len(checkpoint.vocabulary))
    sizes = member_config(checkpoint.config, len(vocabulary))
    input_matrix = "E" if sizes.embedding else "layer0.U"
    for old_row, row in zip(old_rows, parameters, strict=True):
        old, new = named_views(old_sizes, old_row), named_views(sizes, row)
        for name, values in old.items():
            if name == input_matrix:
                new[name][known] = values
            elif name == "V":
                new[name][...] = 0
                new[name][:, known] = values
            elif name == "c":
                new[name][...] = values.min()
                new[name][known] = values
            else:
                new[name][...] = values
