"""The network: stacked recurrent layers and a softmax layer, with all parameters in one flat array.

For a one-hot row x, each layer computes  a = x U + h W + b,  h = cell(a);  the output is  o = h V + c,
p = softmax(o). With an embedding, the first layer takes x E instead of x, so that its input matrix is E U.
Vectors are rows: a batch of B characters is B rows, and each matrix is the transpose of the textbook's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import DTypeLike, NDArray

from model import buffers, recurrent
from model.cells import CELLS, Array, Cell
from model.config import RunConfig
from model.errors import ConfigError
from model.layer_tape import LayerTape, flat
from model.recurrent import LayerWeights


@dataclass(frozen=True)
class NetworkConfig:
    """The sizes of a network. Raises ConfigError for an unknown cell or a size below 1.

    Attributes:
        vocabulary: K, the number of characters.
        hidden: H, the units per layer.
        layers: L.
        cell: a key of CELLS.
        embedding: D, the length of a character's embedding; 0 for one-hot input.
    """

    vocabulary: int
    hidden: int
    layers: int
    cell: str
    embedding: int = 0

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise ConfigError("cell", f"must be one of {', '.join(CELLS)}. Given: {self.cell!r}")
        for name in ("vocabulary", "hidden", "layers"):
            if getattr(self, name) < 1:
                raise ConfigError(name, f"must be at least 1. Given: {getattr(self, name)}")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The name and shape of every parameter, in the order of the flat array."""
        width = CELLS[self.cell].gates * self.hidden
        shapes: dict[str, tuple[int, ...]] = {}
        if self.embedding:
            shapes["E"] = (self.vocabulary, self.embedding)
        for layer in range(self.layers):
            shapes[f"layer{layer}.U"] = (self.hidden if layer else self.embedding or self.vocabulary, width)
            shapes[f"layer{layer}.W"] = (self.hidden, width)
            shapes[f"layer{layer}.b"] = (width,)
        shapes["V"] = (self.hidden, self.vocabulary)
        shapes["c"] = (self.vocabulary,)
        return shapes

    def size(self) -> int:
        """Number of parameters."""
        return sum(int(np.prod(shape)) for shape in self.shapes().values())


def named_views(config: NetworkConfig, flat: Array) -> dict[str, Array]:
    """The parameters or gradients by name, as views of `flat` (P,). Raises ConfigError for a wrong size."""
    if flat.size != config.size():
        raise ConfigError("flat", f"must hold {config.size()} parameters for {config}. Given: {flat.size}")
    views, start = {}, 0
    for name, shape in config.shapes().items():
        end = start + int(np.prod(shape))
        views[name] = flat[start:end].reshape(shape)
        start = end
    return views


class Tape:
    """The values that a forward pass keeps for the backward pass. Reusable for sequences of the same shape.

    Attributes:
        inputs: the ids (T, B) of the last forward pass.
        layers: a LayerTape for each layer.
        logits: (T, B, K); `logit_rows` is a view of them, (T*B, K).
    """

    def __init__(self, config: NetworkConfig, steps: int, rows: int, dtype: DTypeLike) -> None:
        cell = CELLS[config.cell]
        self.layers = [LayerTape(cell, steps, rows, config.hidden, dtype) for _ in range(config.layers)]
        self.inputs: NDArray[np.integer] = np.zeros((steps, rows), np.int32)
        self.logits = buffers.empty((steps, rows, config.vocabulary), dtype)
        self.logit_rows = flat(self.logits)

    @property
    def final_state(self) -> Array:
        """A copy of the state after the last step, (L, S, B, H)."""
        return np.stack([layer.states[:, -1] for layer in self.layers])

    def copy_final_state(self, state: Array) -> None:
        """Writes the state after the last step into `state` (L, S, B, H)."""
        for layer, target in zip(self.layers, state, strict=True):
            target[...] = layer.states[:, -1]

    @property
    def initial_state_gradient(self) -> Array:
        """The gradient with respect to the initial state, (L, S, B, H); valid after a backward pass."""
        return np.stack([layer.dstates[:, 0] for layer in self.layers])


class Network:
    """The parameters of a network, and its forward and backward passes. Keeps no state between calls.

    Attributes:
        flat: all parameters, (P,).
        parameters: views of `flat` by name, with the shapes of `NetworkConfig.shapes`.
    """

    def __init__(self, config: NetworkConfig, flat: Array) -> None:
        self.config = config
        self.flat = flat
        self.parameters = named_views(config, flat)
        self.cell: Cell = CELLS[config.cell]
        self._layers = _layer_weights(config, self.parameters)

    @classmethod
    def initialise(
        cls, config: NetworkConfig, run: RunConfig, rng: np.random.Generator, dtype: DTypeLike = np.float32
    ) -> Network:
        """A network with random weights, drawn according to `run.initialisation`.

        "normal": N(0, initial_scale^2), as in the assignment, and biases of 0. "uniform": initial_scale *
        U(-k, k) with k = 1 / sqrt(H), and the cell's `biases`. Embeddings are N(0, 1).
        """
        network = cls(config, np.zeros(config.size(), dtype))
        for name, values in network.parameters.items():
            if values.ndim == 1:
                continue
            if name == "E":
                values[...] = rng.normal(0.0, 1.0, values.shape)
            elif run.initialisation == "normal":
                values[...] = rng.normal(0.0, run.initial_scale, values.shape)
            else:
                bound = run.initial_scale / np.sqrt(config.hidden)
                values[...] = rng.uniform(-bound, bound, values.shape)
        if run.initialisation == "uniform":
            for layer in network._layers:
                layer.b[...] = np.repeat(network.cell.biases, config.hidden)
        return network

    def astype(self, dtype: DTypeLike) -> Network:
        """A copy with parameters of another dtype."""
        return Network(self.config, self.flat.astype(dtype))

    def input_rows(self) -> Array:
        """The first layer's input matrix, (K, G*H): U, or E U with an embedding."""
        U = self.parameters["layer0.U"]
        return self.parameters["E"] @ U if self.config.embedding else U

    def zero_state(self, rows: int) -> Array:
        """The state before the first character, (L, S, B, H)."""
        return np.zeros((self.config.layers, self.cell.states, rows, self.config.hidden), self.flat.dtype)

    def tape(self, steps: int, rows: int) -> Tape:
        """Buffers for sequences of T steps and B rows."""
        return Tape(self.config, steps, rows, self.flat.dtype)

    def forward(
        self, inputs: NDArray[np.integer], state: Array, tape: Tape | None = None
    ) -> tuple[Array, Tape]:
        """The logits (T, B, K) for ids (T, B) from `state` (L, S, B, H), and the tape for `backward`.

        Both are valid until the tape's next forward pass. Raises ConfigError if the state's dtype is wider
        than the network's.
        """
        if state.dtype != self.flat.dtype and np.result_type(self.flat, state) != self.flat.dtype:
            # NumPy would drop the imaginary part with only a warning
            raise ConfigError(
                "state", f"is {state.dtype}, the network {self.flat.dtype}; use network.astype first"
            )
        if tape is None:
            tape = self.tape(*inputs.shape)
        tape.inputs = inputs
        hidden: Array = inputs
        for weights, layer, initial in zip(self._multiplied(), tape.layers, state, strict=True):
            hidden = recurrent.forward(weights, hidden, initial, layer)
        tape.layers[-1].output_rows.dot(self.parameters["V"], tape.logit_rows)
        np.add(tape.logit_rows, self.parameters["c"], out=tape.logit_rows)
        return tape.logits, tape

    def backward(self, dlogits: Array, tape: Tape, gradient: Network | None = None) -> Network:
        """The gradients of all parameters, as the parameters of a Network of the same configuration.

        dV = h^T do, dc = sum do, dh = do V^T, then each layer from the top down. With an embedding, the
        gradient D of the product E U gives dE = D U^T and dU = E^T D.

        Args:
            dlogits: the loss's gradient with respect to the logits, (T, B, K).
            tape: of the forward pass.
            gradient: overwritten and returned, if given.
        """
        if gradient is None:
            gradient = Network(self.config, np.empty_like(self.flat))
        dlogits, top = flat(dlogits), tape.layers[-1]
        top.output_rows.T.dot(dlogits, gradient.parameters["V"])
        np.add.reduce(dlogits, axis=0, out=gradient.parameters["c"])
        dlogits.dot(self.parameters["V"].T, top.doutput_rows)
        for index in range(self.config.layers - 1, -1, -1):
            inputs = tape.layers[index - 1].outputs if index else tape.inputs
            weights, layer, written = self._layers[index], tape.layers[index], gradient._layers[index]
            if index == 0 and self.config.embedding:
                written = replace(
                    written, U=np.empty((self.config.vocabulary, layer.dv.shape[-1]), self.flat.dtype)
                )
            recurrent.backward(weights, written, inputs, layer)
            if index:
                recurrent.input_gradient(weights, layer, tape.layers[index - 1].doutputs)
        if self.config.embedding:
            np.matmul(written.U, self.parameters["layer0.U"].T, out=gradient.parameters["E"])
            np.matmul(self.parameters["E"].T, written.U, out=gradient.parameters["layer0.U"])
        return gradient

    def _multiplied(self) -> list[LayerWeights]:
        """The layers' weights for the forward pass; the first layer's U is multiplied by the embedding."""
        if not self.config.embedding:
            return self._layers
        return [replace(self._layers[0], U=self.input_rows()), *self._layers[1:]]

    def step(self, ids: NDArray[np.integer], state: Array) -> tuple[Array, Array]:
        """Feeds one character to each row: ids (B,), state (L, S, B, H) -> logits (B, K), new state."""
        logits, tape = self.forward(ids[None], state)
        return logits[0], tape.final_state


def _layer_weights(config: NetworkConfig, views: dict[str, Array]) -> list[LayerWeights]:
    return [
        LayerWeights(*(views[f"layer{layer}.{name}"] for name in "UWb")) for layer in range(config.layers)
    ]
