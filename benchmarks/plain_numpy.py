"""The update of the assignment as solutions usually write it: one-hot columns, step by step, in float64."""

import numpy as np


class PlainRNN:
    """Vanilla RNN with per-step one-hot products, AdaGrad and clipping; column vectors."""

    def __init__(self, characters, hidden, rng):
        shapes = {"U": (hidden, characters), "W": (hidden, hidden), "V": (characters, hidden)}
        self.p = {name: rng.normal(0, 0.01, shape) for name, shape in shapes.items()}
        self.p |= {"b": np.zeros((hidden, 1)), "c": np.zeros((characters, 1))}
        self.m = {name: np.zeros_like(value) for name, value in self.p.items()}

    def update(self, inputs, targets, h, rate=0.1, limit=5.0):
        """One update on ids (T,); returns the summed loss and the last state."""
        p, steps = self.p, len(inputs)
        x = np.eye(len(p["c"]))[:, inputs]
        hs, ps, loss = {-1: h}, {}, 0.0
        for t in range(steps):
            hs[t] = np.tanh(p["W"] @ hs[t - 1] + p["U"] @ x[:, [t]] + p["b"])
            o = p["V"] @ hs[t] + p["c"]
            e = np.exp(o - o.max())
            ps[t] = e / e.sum()
            loss -= np.log(ps[t][targets[t], 0])
        g = {name: np.zeros_like(value) for name, value in p.items()}
        dh_next = np.zeros_like(h)
        for t in reversed(range(steps)):
            do = ps[t].copy()
            do[targets[t]] -= 1
            g["V"] += do @ hs[t].T
            g["c"] += do
            da = (p["V"].T @ do + dh_next) * (1 - hs[t] ** 2)
            g["b"] += da
            g["W"] += da @ hs[t - 1].T
            g["U"] += da @ x[:, [t]].T
            dh_next = p["W"].T @ da
        for name, value in p.items():
            gradient = np.clip(g[name], -limit, limit)
            self.m[name] += gradient**2
            value -= rate * gradient / np.sqrt(self.m[name] + 1e-8)
        return loss, hs[steps - 1]
