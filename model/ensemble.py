"""Ensembles: M networks of the same sizes, trained side by side, each by its own loss, that write as one.

The mean of their logits, o = (1/M) sum_m (h_m V_m + c_m), is what one network of M*H units gives whose
recurrent matrices hold the members' as blocks, gate by gate, and zeros elsewhere, with V the members' below
each other, divided by M, and c the mean of theirs. So nothing that reads a network need know of members.
Averaging networks that were trained apart takes away errors that they do not share (Hansen and Salamon, 1990;
Lakshminarayanan et al., 2017).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.cells import CELLS, Array
from model.config import RunConfig
from model.network import Network, NetworkConfig


def member_config(config: RunConfig, characters: int) -> NetworkConfig:
    """The sizes of each network that a run on a text of so many distinct characters trains."""
    return NetworkConfig(characters, config.hidden, config.layers, config.cell, config.embedding)


def network_config(config: RunConfig, characters: int) -> NetworkConfig:
    """The sizes of the one network that is served, with the units of all members.

    The members' embeddings differ; multiplied out, E_m U_m, they stand beside each other in one U.
    """
    embedding = config.embedding if config.members == 1 else 0
    return NetworkConfig(characters, config.members * config.hidden, config.layers, config.cell, embedding)


def initialise(
    config: RunConfig, characters: int, rng: np.random.Generator, parameters: Array
) -> list[Network]:
    """Fresh members, drawn one after the other, whose parameters lie in the rows of `parameters` (M, P)."""
    sizes = member_config(config, characters)
    for row in parameters:
        row[...] = Network.initialise(sizes, config, rng, parameters.dtype).flat
    return [Network(sizes, row) for row in parameters]


def merge(members: Sequence[Network], target: Network) -> None:
    """Writes the one network whose logits are the mean of the members' into `target`."""
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
