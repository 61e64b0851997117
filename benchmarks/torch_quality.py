"""PyTorch's GRU trained for quality: an embedding, nn.GRU, a linear layer; our settings and batches."""

import time

import torch

from model.batches import Batches
from model.optimizer import learning_rate


class TorchGRU(torch.nn.Module):
    """Also its own training and evaluation, which are what any PyTorch program would write."""

    def __init__(self, config, vocabulary, threads):
        super().__init__()
        torch.manual_seed(0)
        torch.set_num_threads(threads)
        self.config, self.characters = config, len(vocabulary)
        self.embedding = torch.nn.Embedding(self.characters, config.embedding)
        self.recurrent = torch.nn.GRU(config.embedding, config.hidden)
        self.output = torch.nn.Linear(config.hidden, self.characters)

    def forward(self, inputs, state=None):
        hidden, state = self.recurrent(self.embedding(inputs), state)
        return self.output(hidden), state

    def loss(self, inputs, targets, state=None):
        logits, state = self(torch.from_numpy(inputs.copy()).long(), state)
        targets = torch.from_numpy(targets.copy()).long()
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, self.characters), targets.reshape(-1))
        return loss, state

    def train(self, ids, seconds):
        """Trains until the time is over; the number of updates."""
        config = self.config
        batches = Batches(ids, config.sequence_length, config.streams)
        optimizer = torch.optim.AdamW(
            self.parameters(), betas=(config.beta1, config.beta2), weight_decay=config.weight_decay
        )
        start, steps, state = time.perf_counter(), 0, None
        while (elapsed := time.perf_counter() - start) < seconds:
            window = batches.window(steps)
            state = None if window.reset else state
            optimizer.param_groups[0]["lr"] = learning_rate(config, elapsed / seconds)
            loss, state = self.loss(window.inputs, window.targets, state)
            state = state.detach()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters(), config.clip_at)
            optimizer.step()
            steps += 1
        return steps

    @torch.no_grad()
    def losses(self, ids):
        """Windows of 64 and of 256 from the zero state, and 32 streams with carried state."""
        return [self._windowed(ids, 64), self._windowed(ids, 256), self._streaming(ids)]

    def _windowed(self, ids, length):
        count = (len(ids) - 1) // length
        inputs = ids[: count * length].reshape(count, length).T
        targets = ids[1 : count * length + 1].reshape(count, length).T
        total = 0.0
        for start in range(0, count, 64):
            rows = slice(start, start + 64)
            loss, _ = self.loss(inputs[:, rows], targets[:, rows])
            total += loss.item() * targets[:, rows].size
        return total / (count * length)

    def _streaming(self, ids):
        batches, state, total = Batches(ids, 64, 32), None, 0.0
        for index in range(batches.windows_per_epoch):
            window = batches.window(index)
            loss, state = self.loss(window.inputs, window.targets, state)
            total += loss.item()
        return total / batches.windows_per_epoch
