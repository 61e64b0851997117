"""The same network, loss and optimiser in PyTorch."""

import numpy as np
import torch

from benchmarks.own_training import CHARACTERS
from model.training import Training


class Torch(torch.nn.Module):
    """One-hot input, nn.RNN, nn.GRU or nn.LSTM, and a linear layer."""

    def __init__(self, config):
        super().__init__()
        kind = {"elman": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[config.cell]
        self.embedding = torch.nn.Embedding(CHARACTERS, CHARACTERS)
        self.embedding.weight = torch.nn.Parameter(torch.eye(CHARACTERS), requires_grad=False)
        self.recurrent = kind(CHARACTERS, config.hidden)
        self.output = torch.nn.Linear(config.hidden, CHARACTERS)

    def forward(self, inputs, state):
        hidden, state = self.recurrent(self.embedding(inputs), state)
        return self.output(hidden), state


def torch_update(config, text, threads):
    torch.manual_seed(0)
    network, batches = Torch(config), Training(config, *text).batches
    trained = [p for p in network.parameters() if p.requires_grad]
    if config.optimizer == "adagrad":
        optimizer = torch.optim.Adagrad(trained, lr=config.learning_rate)
    else:
        optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
    position, state = 0, None

    def update():
        nonlocal position, state
        torch.set_num_threads(threads)
        window = batches.window(position)
        position += 1
        inputs, targets = (torch.from_numpy(ids.astype(np.int64)) for ids in (window.inputs, window.targets))
        logits, state = network(inputs, state)
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, CHARACTERS), targets.reshape(-1), reduction=config.reduction
        )
        optimizer.zero_grad()
        loss.backward()
        if config.clip == "value":
            torch.nn.utils.clip_grad_value_(trained, config.clip_at)
        else:
            torch.nn.utils.clip_grad_norm_(trained, config.clip_at)
        optimizer.step()
        return loss.item()

    return update
