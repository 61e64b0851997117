"""The weights that a run takes over from another: with rows for characters that the other had not seen."""

from __future__ import annotations

from model.cells import Array
from model.checkpoint import Checkpoint
from model.ensemble import member_config
from model.errors import ConfigError
from model.network import named_views
from model.vocabulary import Vocabulary

SIZES = ("cell", "hidden", "layers", "embedding", "members")  # of a configuration: they fix the weights


def take_over(checkpoint: Checkpoint, vocabulary: Vocabulary, parameters: Array) -> None:
    """Write `checkpoint`'s weights into `parameters` (M, P), freshly initialised, of a larger vocabulary.

    A new character keeps its fresh input row; its column of V is 0, and its c that of the least likely
    character, so that what the network predicts hardly changes by it. Raises ConfigError if `checkpoint` was
    kept for serving only and has no weights of single members.
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
    read = "E" if sizes.embedding else "layer0.U"
    for old_row, row in zip(old_rows, parameters, strict=True):
        old, new = named_views(old_sizes, old_row), named_views(sizes, row)
        for name, values in old.items():
            if name == read:
                new[name][known] = values
            elif name == "V":
                new[name][...] = 0
                new[name][:, known] = values
            elif name == "c":
                new[name][...] = values.min()
                new[name][known] = values
            else:
                new[name][...] = values
