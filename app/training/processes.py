"""Runs the parts of a batch on several cores, in processes with shared memory.

Each process runs one part, or several one after another if there are more parts than processes. The result is
the same to the bit, whichever process runs a part.

Threads would be slower: the steps of a recurrent network are many small operations, between which threads
wait for the GIL. Parameters, text, state and gradients are in one anonymous shared mapping. If the trainer
ends for any reason, a helper reads end-of-file from its pipe and ends too.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
from threadpoolctl import threadpool_limits

from app.store.capacity import of_this_process
from model.batches import Window
from model.buffers import whole_lines
from model.cells import CELLS, Array
from model.config import RunConfig
from model.ensemble import member_config
from model.network import Network, NetworkConfig
from model.orthogonal import Blocks
from model.passes import Part, Passes, SerialPasses, by_member, gradients_shape, shard_rows, summed

PASS, ORTHOGONALISE, DONE = b"p", b"o", b"d"
MEMORY_FOLDER = Path("/dev/shm")  # a file system in memory, if the system has it  # noqa: S108


@contextmanager
def running_passes(members: Sequence[Network], config: RunConfig) -> Iterator[Passes]:
    """The passes of a run, with helper processes if it has more than one part; these end with the block."""
    if config.members * len(shard_rows(config)) == 1:
        yield SerialPasses(members, config)
        return
    passes = ParallelPasses(members, config)
    try:
        yield passes
    finally:
        passes.close()


class Memory:
    """The arrays in shared memory: parameters, ids, state, and each part's gradient and loss."""

    def __init__(self, file: IO[bytes], network: NetworkConfig, config: RunConfig) -> None:
        members, size, gradients = config.members, network.size(), gradients_shape(config, network.size())
        characters, units = config.sequence_length * config.streams, members * config.hidden
        state = (config.layers, CELLS[config.cell].states, config.streams, units)
        count = gradients[0] * members
        sizes = [members * size, 2 * characters, math.prod(state), math.prod(gradients), 2 * count]
        sizes = [whole_lines(length, np.float32) for length in sizes]
        file.truncate(4 * sum(sizes))
        self._map = mmap.mmap(file.fileno(), 4 * sum(sizes))
        starts = [4 * sum(sizes[:index]) for index in range(len(sizes))]

        def array(index: int, shape: tuple[int, ...], dtype: type = np.float32) -> Array:
            return np.ndarray(shape, dtype, self._map, starts[index])

        self.parameters = array(0, (members, size))
        self.ids = array(1, (2, config.sequence_length, config.streams), np.int32)
        self.state = array(2, state)
        self.gradients = by_member(array(3, gradients), members, size)
        self.losses = array(4, (count, 2)).view(np.float64)[:, 0]

    def part(self, index: int, network: NetworkConfig, config: RunConfig) -> Part:
        """Part `index`, using this memory."""
        member, shard = divmod(index, len(self.gradients))
        return Part(Network(network, self.parameters[member]), config, index, self.gradients[shard, member])

    def share(self, first: int, processes: int, network: NetworkConfig, config: RunConfig) -> Share:
        """The parts, and the blocks for Muon, of process `first` of `processes`."""
        numbers = range(first, len(self.losses), processes)
        parts = {index: self.part(index, network, config) for index in numbers}
        return Share(self, parts, Blocks(network, config, self.gradients[0], first, processes))


class Share:
    """The work of one process."""

    def __init__(self, memory: Memory, parts: Mapping[int, Part], blocks: Blocks) -> None:
        self._memory, self._parts, self._blocks = memory, parts, blocks

    def work(self, what: bytes) -> None:
        """Executes a command, PASS or ORTHOGONALISE."""
        if what == PASS:
            self._run()
        elif what == ORTHOGONALISE:
            self._blocks.orthogonalise()

    def _run(self) -> None:
        memory = self._memory
        for index, part in self._parts.items():
            memory.losses[index] = part.run(memory.ids[0], memory.ids[1], memory.state)


class ParallelPasses:
    """Runs the parts in this process and its helpers, in parallel; at most four processes per core."""

    def __init__(self, members: Sequence[Network], config: RunConfig) -> None:
        self._members, network = members, members[0].config
        folder = MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None
        with tempfile.TemporaryFile(dir=folder) as file:  # has no name, so there is nothing to clean up
            self._memory = Memory(file, network, config)
            processes = of_this_process().processes_for(len(self._memory.losses))
            self._share = self._memory.share(0, processes, network, config)
            self.gradients = self._memory.gradients[0]
            self._helpers = [
                _start_helper(first, processes, file.fileno(), network, config)
                for first in range(1, processes)
            ]

    def run(self, window: Window, state: Array) -> float:
        memory = self._memory
        for row, member in zip(memory.parameters, self._members, strict=True):
            row[:] = member.flat
        memory.ids[0], memory.ids[1] = window.inputs, window.targets
        memory.state[:] = state
        self._all(PASS)
        state[:] = memory.state
        return summed(memory.losses.tolist(), memory.gradients)

    def orthogonalise(self) -> None:
        self._all(ORTHOGONALISE)

    def _all(self, what: bytes) -> None:
        """Executes a command in all processes, in parallel."""
        for helper in self._helpers:
            _pipe(helper.stdin).write(what)
        self._share.work(what)
        for helper in self._helpers:
            if _pipe(helper.stdout).read(1) != DONE:
                raise OSError(
                    f"a training helper ended with code {helper.wait()}; the run continues when resumed"
                )

    def close(self) -> None:
        """Ends the helpers."""
        for helper in self._helpers:
            _pipe(helper.stdin).close()
        for helper in self._helpers:
            helper.wait()
            _pipe(helper.stdout).close()


def _start_helper(
    first: int, processes: int, memory: int, network: NetworkConfig, config: RunConfig
) -> subprocess.Popen[bytes]:
    task = {
        "first": first,
        "processes": processes,
        "memory": memory,
        "vocabulary": network.vocabulary,
        "config": config.to_dict(),
    }
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", "app.training.processes", json.dumps(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        pass_fds=[memory],
        process_group=0,  # so that Ctrl-C in a terminal reaches only the trainer
    )


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("the helper process was started without its pipes")
    return pipe


def main(task: str) -> None:
    """A helper process: executes the commands on standard input until end-of-file."""
    described = json.loads(task)
    config = RunConfig.from_dict(described["config"])
    network = member_config(config, described["vocabulary"])
    with open(described["memory"], "r+b", buffering=0) as file:
        memory = Memory(file, network, config)
    share = memory.share(described["first"], described["processes"], network, config)
    # BrokenPipeError: the trainer was killed
    with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"), suppress(BrokenPipeError):
        while what := os.read(0, 1):
            share.work(what)
            os.write(1, DONE)


if __name__ == "__main__":
    main(sys.argv[1])
