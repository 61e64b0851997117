"""GRUs in PyTorch trained for quality: an embedding, nn.GRU and a linear layer; our settings and batches.

Several are trained at the same time, like ours, in a process and a thread each; their logits are averaged.
"""

import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from model.batches import Batches
from model.optimizer import learning_rate


class TorchGRU(torch.nn.Module):
    """The network, and its training as in any PyTorch program."""

    def __init__(self, config, characters):
        super().__init__()
        self.config = config
        self.embedding = torch.nn.Embedding(characters, config.embedding)
        self.recurrent = torch.nn.GRU(config.embedding, config.hidden)
        self.output = torch.nn.Linear(config.hidden, characters)

    def forward(self, inputs, state=None):
        hidden, state = self.recurrent(self.embedding(inputs), state)
        return self.output(hidden), state

    def train(self, ids, seconds):
        """Train until the time is over; return the number of updates."""
        config = self.config
        batches = Batches(ids, config.sequence_length, config.streams)
        optimizers = self._optimizers()
        start, steps, state = time.perf_counter(), 0, None
        while (elapsed := time.perf_counter() - start) < seconds:
            window = batches.window(steps)
            state = None if window.reset else state
            logits, state = self(as_tensor(window.inputs), state)
            state = state.detach()
            self.zero_grad(set_to_none=False)
            cross_entropy(logits, window.targets).backward()
            torch.nn.utils.clip_grad_norm_(self.parameters(), config.clip_at)
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = learning_rate(config, elapsed / seconds)
                optimizer.step()
            steps += 1
        return steps

    def _optimizers(self):
        """AdamW; or Muon for each gate block of both matrices of the GRU, and AdamW for the rest."""
        config, matrices = self.config, []
        if config.optimizer == "muon":
            matrices = [self.recurrent.weight_ih_l0, self.recurrent.weight_hh_l0]
        others = [p for p in self.parameters() if not any(p is matrix for matrix in matrices)]
        betas = config.beta1, config.beta2
        optimizers = [torch.optim.AdamW(others, betas=betas, weight_decay=config.weight_decay)]
        if matrices:
            optimizers.append(
                ScaledMuon([block for matrix in matrices for block in gate_blocks(matrix)], config)
            )
        return optimizers


class ScaledMuon:
    """torch.optim.Muon with our scale: its step for a matrix (N, M) is 0.2 sqrt(max(N, M)) times its rate."""

    def __init__(self, blocks, config):
        self._scale = config.muon_scale / 0.2
        self._muon = torch.optim.Muon(
            blocks,
            weight_decay=config.weight_decay / self._scale,
            momentum=config.muon_momentum,
            ns_steps=config.muon_iterations,
            adjust_lr_fn="match_rms_adamw",
        )
        self.param_groups = [{}]

    def step(self):
        self._muon.param_groups[0]["lr"] = self.param_groups[0]["lr"] * self._scale
        self._muon.step()


def gate_blocks(weight):
    """The three blocks (H, N) of (3H, N) as parameters that share its memory, and that of its gradient."""
    weight.grad = torch.zeros_like(weight)
    blocks = [torch.nn.Parameter(part) for part in weight.data.chunk(3)]
    for block, gradient in zip(blocks, weight.grad.chunk(3), strict=True):
        block.grad = gradient
    return blocks


def as_tensor(ids):
    return torch.from_numpy(ids.astype(np.int64))


def cross_entropy(logits, targets):
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), as_tensor(targets).flatten())


def train_one(config, characters, ids, seed, file):
    """Train one network; save its weights and number of updates in `file`. Each process calls this."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    network = TorchGRU(config, characters)
    steps = network.train(ids, 60 * config.minutes)
    np.savez(file, steps=steps, **{name: values.numpy() for name, values in network.state_dict().items()})


def trained(config, characters, ids):
    """(networks, mean number of updates) after the training time of `config`."""
    spawn = multiprocessing.get_context("spawn")
    networks, steps = [], []
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{member}.npz") for member in range(config.members)]
        processes = [
            spawn.Process(
                target=train_one, args=(config, characters, ids, config.seed * len(files) + member, file)
            )
            for member, file in enumerate(files)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        for file in files:  # missing if its process failed and printed the reason
            with np.load(file) as arrays:
                weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "steps"}
                steps.append(int(arrays["steps"]))
            network = TorchGRU(config, characters)
            network.load_state_dict(weights)
            networks.append(network)
    return networks, sum(steps) / len(steps)


@torch.no_grad()
def losses(networks, ids):
    """Losses of windows of 64 and of 256 from the zero state, and of 32 streams with carried state."""
    torch.set_num_threads(1)  # on a busy machine two threads wait for each other
    return [_windowed(networks, ids, 64), _windowed(networks, ids, 256), _streaming(networks, ids)]


def _loss(networks, inputs, targets, states):
    """The loss of the mean logits of the networks, and their next states."""
    results = [network(as_tensor(inputs), state) for network, state in zip(networks, states, strict=True)]
    logits = torch.stack([logits for logits, _ in results]).mean(0)
    return cross_entropy(logits, targets).item(), [state for _, state in results]


def _windowed(networks, ids, length):
    count = (len(ids) - 1) // length
    inputs = ids[: count * length].reshape(count, length).T
    targets = ids[1 : count * length + 1].reshape(count, length).T
    total = 0.0
    for start in range(0, count, 64):
        rows = slice(start, start + 64)
        loss, _ = _loss(networks, inputs[:, rows], targets[:, rows], [None] * len(networks))
        total += loss * targets[:, rows].size
    return total / (count * length)


def _streaming(networks, ids):
    batches, states, total = Batches(ids, 64, 32), [None] * len(networks), 0.0
    for index in range(batches.windows_per_epoch):
        window = batches.window(index)
        loss, states = _loss(networks, window.inputs, window.targets, states)
        total += loss
    return total / batches.windows_per_epoch
