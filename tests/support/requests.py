"""Random requests, and the texts that they must return."""

from __future__ import annotations

import json
import random
from typing import Any

import httpx

from model.checkpoint import Checkpoint
from model.generation import generate
from model.sampling import SamplingConfig

SAMPLING = {
    "temperature": (0, 0.3, 0.8, 1.3),
    "top_k": (0, 3, 8),
    "top_p": (1.0, 0.6, 0.9),
    "min_p": (0.0, 0.1),
    "repetition_penalty": (1.0, 1.3),
    "frequency_penalty": (0.0, 0.5),
    "presence_penalty": (0.0, -0.4),
}


def any_request(rng: random.Random) -> dict[str, Any]:
    """A request with a random model, length, prompt, sampling settings and stop strings."""
    request: dict[str, Any] = {
        "prompt": rng.choice(("", "the ", "a cat sat", "dog\n" * 9)),
        "length": rng.choice((1, 7, 60, 200, 333)),
        "seed": rng.randrange(1000),
        "model": rng.choice(("gru@60", "gru@60", "gru@40", "classic@60")),
    }
    request |= {name: rng.choice(values) for name, values in SAMPLING.items() if rng.random() < 0.3}
    if rng.random() < 0.3:
        request["stop"] = rng.choice(("\n", "cat", ["dog", "at t"]))
    return request


def alone(request: dict[str, Any], checkpoints: dict[str, Checkpoint]) -> str:
    """What the network writes for the request outside any server."""
    checkpoint = checkpoints[request["model"]]
    sampling = SamplingConfig(**{name: request[name] for name in SAMPLING if name in request})
    stop = request.get("stop", ())
    return generate(
        checkpoint.network(),
        checkpoint.vocabulary,
        request["prompt"],
        request["length"],
        sampling,
        request["seed"],
        stop=(stop,) if isinstance(stop, str) else stop,
    ).text


def ask(client: httpx.Client, request: dict[str, Any], streamed: bool) -> str:
    if not streamed:
        return client.post("/generate", json=request).raise_for_status().json()["text"]
    text = ""
    with client.stream("POST", "/generate", json=request | {"stream": True}) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line == "event: done":
                break
            if line.startswith("data: "):
                text += json.loads(line.removeprefix("data: "))["text"]
    return text
