"""Loss curves of any length."""

from __future__ import annotations

import dataclasses

import numpy as np

from app.store.loss_curves import Curve


def record(step: int, **changes: float | None) -> dict:
    return {"step": step, "loss": 3.0, "smooth_loss": 3.0, "validation_loss": None} | changes


def long_curve(points: int) -> Curve:
    rng = np.random.default_rng(0)
    losses = rng.normal(2, 0.1, points)
    losses[points // 3], losses[points // 2] = 9.0, 0.5
    records = [
        record(step, loss=float(loss), validation_loss=2.0 if step % 1000 == 0 else None)
        for step, loss in enumerate(losses)
    ]
    return Curve("a", "training", points, points, "gru", records, [], None, {}, None)


SMALL = Curve(
    run="classic",
    state="training",
    step=9,
    steps=60,
    cell="elman",
    points=[record(0, loss=None, smooth_loss=None, validation_loss=4.0)]
    + [record(step, loss=4 - step / 5, smooth_loss=4 - step / 8) for step in range(1, 10)],
    checkpoints=[0, 5],
    best=(8, 2.4),
    baselines={"uniform": 4.17, "unigram": 3.3, "5-gram": 1.7},
    sequence_length=25,
)
EMPTY = dataclasses.replace(SMALL, points=[], checkpoints=[], best=None, baselines={}, step=0)
ONE = dataclasses.replace(SMALL, points=SMALL.points[:1], checkpoints=[0], best=None)
