"""Ensembles: M networks of the same sizes, each trained on its own loss, whose logits are averaged.

The mean of the logits, o = (1/M) sum_m (h_m V_m + c_m), equals the output of one network of M*H units: its
recurrent matrices are block-diagonal, gate by gate, with the members' matrices as blocks; its V stacks the
members' V, divided by M; its c is the mean of theirs. Code that uses a network therefore need not know about
members. Averaging independently trained networks cancels errors that they do not share (Hansen and Salamon,
1990; Lakshminarayanan et al., 2017).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.cells import CELLS, Array
from model.config import RunConfig
from model.network import Network, NetworkConfig


def member_config(config: RunConfig, characters: int) -> NetworkConfig:
    """The sizes of each member of a run on a text of `characters` distinct characters."""
    return NetworkConfig(characters, config.hidden, config.layers, config.cell, config.embedding)


def network_config(config: RunConfig, characters: int) -> NetworkConfig:
    """The sizes of the merged network that is served, with the units of all members.

    The members have different embeddings, so an ensemble has none: its U has the products E_m U_m side by
        side.
    """
    embedding = config.embedding if config.members == 1 else 0
    return NetworkConfig(characters, config.members * config.hidden, config.layers, config.cell, embedding)


def initialise(
    config: RunConfig, characters: int, rng: np.random.Generator, parameters: Array
) -> list[Network]:
    """M members with random weights, drawn in order; their parameters are the rows of `parameters` (M, P)."""
    sizes = member_config(config, characters)
    for row in parameters:
        row[...] = Network.initialise(sizes, config, rng, parameters.dtype).flat
    return [Network(sizes, row) for row in parameters]


def merge(members: Sequence[Network], target: Network) -> None:
    """Writes the network whose logits are the mean of the members' into `target`."""
    if len(members) == 1:
        target.flat[...] = members[0].flat
        return
    gates, hidden, count = CELLS[target.config.cell].gates, members[0].config.hidden, len(members)
    target.flat[...] = 0
    for m, member in enumerate(members):
        for name, values in target.parameters.items():
            given = member.input_rows() if name == "layer0.U" else member.parameters[name]
            if name == "V":
                values.reshape(count, hidden, -1)[m] = given / count
            elif name == "c":
                values += given / count
            elif name.endswith(".b"):
                values.reshape(gates, count, hidden)[:, m] = given.reshape(gates, hidden)
            elif name == "layer0.U":
                values.reshape(-1, gates, count, hidden)[:, :, m] = given.reshape(-1, gates, hidden)
            else:
                blocks = values.reshape(count, hidden, gates, count, hidden)
                blocks[m, :, :, m] = given.reshape(hidden, gates, hidden)
