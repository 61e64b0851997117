"""The same network generating text in PyTorch in the usual way: a module per step, softmax, multinomial."""

import torch


class TorchWriter:
    """A one-layer vanilla RNN or GRU with the parameters of one of ours, in one thread."""

    def __init__(self, network):
        config, own = network.config, network.parameters
        kind = {"elman": torch.nn.RNN, "gru": torch.nn.GRU}[config.cell]
        self.recurrent = kind(config.vocabulary, config.hidden)
        self.output = torch.nn.Linear(config.hidden, config.vocabulary)
        p = {name: torch.from_numpy(value.T.copy()) for name, value in own.items()}
        with torch.no_grad():
            self.recurrent.weight_ih_l0.copy_(p["layer0.U"])
            self.recurrent.weight_hh_l0.copy_(p["layer0.W"])
            self.recurrent.bias_ih_l0.copy_(p["layer0.b"])
            self.recurrent.bias_hh_l0.zero_()
            self.output.weight.copy_(p["V"])
            self.output.bias.copy_(p["c"])
        self.one_hot = torch.eye(config.vocabulary)

    @torch.inference_mode()
    def write(self, rows, length):
        """Ids (length, rows)."""
        torch.set_num_threads(1)
        ids, state, written = torch.zeros(rows, dtype=torch.long), None, []
        for _ in range(length):
            hidden, state = self.recurrent(self.one_hot[ids][None], state)
            ids = torch.multinomial(torch.softmax(self.output(hidden[0]), 1), 1)[:, 0]
            written.append(ids)
        return torch.stack(written)
