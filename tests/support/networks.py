"""Networks with random weights, and varied requests to them."""

import random
import string
from typing import Any

import numpy as np

from model import reference
from model.cells import Array
from model.decoder import Decoder
from model.network import Network, NetworkConfig
from model.row import Row
from model.sampling import SamplingConfig
from model.vocabulary import Vocabulary

VOCABULARY = Vocabulary(sorted("\n !," + string.ascii_lowercase))


def random_network(
    cell: str = "elman", layers: int = 1, hidden: int = 20, vocabulary: Vocabulary = VOCABULARY, seed: int = 0
) -> Network:
    config = NetworkConfig(len(vocabulary), hidden, layers, cell)
    weights = np.random.default_rng(seed).normal(0, 0.5, config.size())
    return Network(config, weights.astype(np.float32))


def in_blocks(decoder: Decoder) -> Decoder:
    """The decoder as it works with a BLAS whose results depend on the width of a product."""
    decoder.multiply_in_blocks(4)
    return decoder


def mixed_request(number: int, longest: int = 120) -> dict[str, Any]:
    """Keyword arguments of a Row; prompt, length, settings and stop strings vary with the number."""
    rng = random.Random(number)
    letters = VOCABULARY.characters
    settings = {
        "temperature": rng.choice([1.0, 1.0, 0.7, 1.3, 0.0]),
        "top_k": rng.choice([0, 0, 0, 5]),
        "top_p": rng.choice([1.0, 1.0, 0.8]),
        "min_p": rng.choice([0.0, 0.0, 0.05]),
    }
    if number % 3 == 0:
        settings["typical_p"] = 0.7
    if number % 5 == 0:
        settings |= {"repetition_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": -0.3}
    if number % 7 == 0:
        settings["logit_bias"] = ((3, 2.0), (5, -100.0))
    return {
        "prompt": "".join(rng.choices(letters, k=rng.choice([0, 1, 3, 40]))),
        "length": rng.randrange(longest),
        "sampling": SamplingConfig(**settings),
        "seed": number,
        "choice": number % 3,
        "stop": rng.choice([(), (), ("e",), ("ab", "the", "q!")]),
        "logprobs": rng.choice([None, None, None, 2]),
    }


def outcome(row: Row) -> tuple[object, ...]:
    """Everything that a row has produced."""
    scores = row.prompt_logprobs.tolist(), row.logprobs_of.tolist(), row.ranks.tolist()
    return row.text, row.ids, row.finish_reason, *scores, row.likeliest(0, row.scored)


def reference_units(network: Network, ids: Array) -> Array:
    """Activations (T, L, H) by model/reference.py, one character at a time."""
    states = [list(layer[:, 0]) for layer in network.zero_state(1)]
    outputs = []
    for character in ids:
        _, states, _ = reference.step(
            network.parameters, reference.CELLS[network.config.cell], character, states
        )
        outputs.append([state[0] for state in states])
    return np.array(outputs)
