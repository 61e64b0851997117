"""The same RNN in PyTorch behind LitServe, with batching: a common alternative for serving on a CPU.

python -m benchmarks.litserve_peer PORT CHECKPOINT WORKERS
"""

import sys
from pathlib import Path

import litserve
import torch

from model.checkpoint import load


class CharRNN(litserve.LitAPI):
    """Serves a checkpoint of a vanilla RNN; samples at temperature 1."""

    def setup(self, device):
        torch.set_num_threads(1)
        checkpoint = load(Path(self.checkpoint))
        p = {name: torch.from_numpy(value) for name, value in checkpoint.network().parameters.items()}
        characters, hidden = p["layer0.U"].shape
        self.vocabulary = checkpoint.vocabulary
        self.rnn, self.output = torch.nn.RNN(characters, hidden), torch.nn.Linear(hidden, characters)
        with torch.no_grad():
            self.rnn.weight_ih_l0.copy_(p["layer0.U"].T)
            self.rnn.weight_hh_l0.copy_(p["layer0.W"].T)
            self.rnn.bias_ih_l0.copy_(p["layer0.b"])
            self.rnn.bias_hh_l0.zero_()
            self.output.weight.copy_(p["V"].T)
            self.output.bias.copy_(p["c"])
        self.one_hot = torch.eye(characters)

    def decode_request(self, request):
        return request["prompt"], request["length"]

    def batch(self, inputs):
        return inputs

    def unbatch(self, output):
        return output

    @torch.inference_mode()
    def predict(self, requests):
        alone = not isinstance(requests, list)
        if alone:
            requests = [requests]
        length = max(length for _, length in requests)
        ids = torch.tensor([int(self.vocabulary.encode(prompt[-1:])[0]) for prompt, _ in requests])
        state, written = None, []
        for _ in range(length):
            hidden, state = self.rnn(self.one_hot[ids][None], state)
            ids = torch.multinomial(torch.softmax(self.output(hidden[0]), 1), 1)[:, 0]
            written.append(ids)
        texts = [self.vocabulary.decode(row.numpy()) for row in torch.stack(written, 1)]
        return texts[0] if alone else texts

    def encode_response(self, output):
        return {"text": output}


if __name__ == "__main__":
    api = CharRNN(max_batch_size=64, batch_timeout=0.002, api_path="/generate")
    api.checkpoint = sys.argv[2]
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(sys.argv[3]))
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="error", generate_client_file=False)
