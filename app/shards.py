"""The shards of a batch on several cores: one process a shard, over shared memory.

Processes, because a recurrent network's steps are many small operations, between which threads of one
interpreter wait for each other. The helpers hold nothing of their own: parameters, text, state and gradients
lie in one nameless piece of shared memory, and a helper whose trainer is gone, however it went, reads the end
of its pipe and ends.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
from threadpoolctl import threadpool_limits

from model.batches import Window
from model.cells import Array
from model.config import RunConfig
from model.network import Network, NetworkConfig
from model.shards import InTurn, Passes, Shard, shard_rows

GO, DONE = b"g", b"d"
MEMORY_FOLDER = Path("/dev/shm")  # memory without a disk behind it, where the system has it  # noqa: S108


@contextmanager
def running_passes(network: Network, config: RunConfig) -> Iterator[Passes]:
    """The passes of a run, by helper processes if it has more than one shard; they end with the context."""
    if len(shard_rows(config)) == 1:
        yield InTurn(network, config)
        return
    passes = InProcesses(network, config)
    try:
        yield passes
    finally:
        passes.close()


class Memory:
    """Arrays that several processes see: parameters, ids, state, and a gradient and a loss a shard."""

    def __init__(self, file: IO[bytes], network: NetworkConfig, config: RunConfig) -> None:
        shards, characters = len(shard_rows(config)), config.sequence_length * config.streams
        zero = Network(network, np.zeros(network.size(), np.float32)).zero_state(config.streams)
        sizes = [network.size(), 2 * characters, zero.size, shards * network.size(), 2 * shards]
        file.truncate(4 * sum(sizes))
        self._map = mmap.mmap(file.fileno(), 4 * sum(sizes))
        starts = [4 * sum(sizes[:index]) for index in range(len(sizes))]

        def array(index: int, shape: tuple[int, ...], dtype: type = np.float32) -> Array:
            return np.ndarray(shape, dtype, self._map, starts[index])

        self.parameters = array(0, (network.size(),))
        self.ids = array(1, (2, config.sequence_length, config.streams), np.int32)
        self.state = array(2, zero.shape)
        self.gradients = array(3, (shards, network.size()))
        self.losses = array(4, (shards, 2)).view(np.float64)[:, 0]

    def shard(self, index: int, network: NetworkConfig, config: RunConfig) -> Shard:
        """Shard `index`, working in this memory."""
        rows = shard_rows(config)[index]
        return Shard(Network(network, self.parameters), config, rows, Network(network, self.gradients[index]))

    def run(self, index: int, shard: Shard) -> None:
        """One pass of one shard."""
        self.losses[index] = shard.run(self.ids[0], self.ids[1], self.state)


class InProcesses:
    """The first shard in this process, each other one in a helper, all at once."""

    def __init__(self, network: Network, config: RunConfig) -> None:
        self._network = network
        folder = MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None
        with tempfile.TemporaryFile(dir=folder) as file:  # nameless from the start: nothing to clean up
            self._memory = Memory(file, network.config, config)
            self._shard = self._memory.shard(0, network.config, config)
            self.gradient = self._shard.gradient
            self._helpers = [
                _start_helper(index, file.fileno(), network.config, config)
                for index in range(1, len(shard_rows(config)))
            ]

    def run(self, window: Window, state: Array) -> float:
        memory = self._memory
        memory.parameters[:] = self._network.flat
        memory.ids[0], memory.ids[1] = window.inputs, window.targets
        memory.state[:] = state
        for helper in self._helpers:
            _pipe(helper.stdin).write(GO)
        memory.run(0, self._shard)
        for helper in self._helpers:
            if _pipe(helper.stdout).read(1) != DONE:
                raise OSError(
                    f"a training helper ended with code {helper.wait()}; the run goes on when resumed"
                )
        for gradient in memory.gradients[1:]:
            np.add(self.gradient.flat, gradient, out=self.gradient.flat)
        state[:] = memory.state
        return float(sum(memory.losses.tolist()))

    def close(self) -> None:
        """Ends the helpers."""
        for helper in self._helpers:
            _pipe(helper.stdin).close()
        for helper in self._helpers:
            helper.wait()
            _pipe(helper.stdout).close()


def _start_helper(
    index: int, memory: int, network: NetworkConfig, config: RunConfig
) -> subprocess.Popen[bytes]:
    task = {"index": index, "memory": memory, "vocabulary": network.vocabulary, "config": config.to_dict()}
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", "app.shards", json.dumps(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        pass_fds=[memory],
        process_group=0,  # Ctrl-C in a terminal is the trainer's to answer
    )


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("the helper was started without its pipes")
    return pipe


def main(task: str) -> None:
    """A helper: one pass of its shard for each byte it reads, until its trainer is gone."""
    described = json.loads(task)
    config = RunConfig.from_dict(described["config"])
    network = NetworkConfig(described["vocabulary"], config.hidden, config.layers, config.cell)
    with open(described["memory"], "r+b", buffering=0) as file:
        memory = Memory(file, network, config)
    shard = memory.shard(described["index"], network, config)
    # a trainer that was killed reads nothing any more
    with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"), suppress(BrokenPipeError):
        while os.read(0, 1) == GO:
            memory.run(described["index"], shard)
            os.write(1, DONE)


if __name__ == "__main__":
    main(sys.argv[1])
