"""Small Keras trainings, and the runs that they log."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

_random = np.random.default_rng(3)
X = _random.normal(size=(50, 4)).astype("float32")
Y = _random.normal(size=(50, 1)).astype("float32")
BATCH = 16
SIZES = [16, 16, 16, 2]
"""Samples of each batch of an epoch."""


def model(optimizer: Any = None, **compiling: Any) -> keras.Model:
    """A small regression, with the same weights each time."""
    keras.utils.set_random_seed(5)
    made = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(1)]
    )
    made.compile(optimizer or keras.optimizers.SGD(0.05), "mse", metrics=["mae"], **compiling)
    return made


def eager_model(optimizer: Any = None) -> keras.Model:
    """The same without a graph, which costs longer to make than to train here."""
    return model(optimizer, run_eagerly=True)


def fit(made: keras.Model, **arguments: Any) -> dict[str, list[float]]:
    """Train in the same order each time; gives the history."""
    given = {"batch_size": BATCH, "epochs": 2, "shuffle": False, "verbose": 0, **arguments}
    history: dict[str, list[float]] = made.fit(X, Y, **given).history
    return history


def batch_losses(epochs: int) -> list[list[float]]:
    """The loss of each batch of each epoch, by training the same model batch by batch."""
    made = model()
    losses = []
    for _ in range(epochs):
        losses.append([])
        for start in range(0, len(X), BATCH):
            x, y = X[start : start + BATCH], Y[start : start + BATCH]
            losses[-1].append(float(np.mean((made(x).numpy() - y) ** 2)))
            made.train_on_batch(x, y)
    return losses


class Raising(keras.callbacks.Callback):
    """Raises at the end of an epoch, the first one by default."""

    def __init__(self, error: BaseException, epoch: int = 0) -> None:
        super().__init__()
        self.error, self.epoch = error, epoch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch:
            raise self.error
