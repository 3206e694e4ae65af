"""The optimizers of a model: which of them train it, how they are set up, how far they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from autolog.callbacks.keras.reading import scalar

MAIN = "optimizer"
"""The attribute that holds what ``compile`` was given, or made where it was given nothing."""


class Optimizers:
    """Those of a model in one fit, of which only those that train it are told of.

    What Keras' own ``train_step`` does is known before. With another one it shows by the steps
    that each has made: ``compile`` makes an optimizer for models that have others too.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        held = _held_by(model)
        self._begun = {name: _iterations(optimizer) for name, optimizer in held.items()}
        # As they are before callbacks change a learning rate.
        self._params = {name: _params_of(name, optimizer) for name, optimizer in held.items()}
        self._training = {MAIN} & held.keys() if _is_stepped_by_keras(model) else set()

    def train_the_model(self, name: str = MAIN) -> bool:
        """Whether the one in this attribute does, as far as is known by now."""
        optimizer = _held_by(self._model).get(name)
        if optimizer is None or name in self._training:
            return optimizer is not None
        if _iterations(optimizer) > self._begun.get(name, 0):
            self._training.add(name)
        return name in self._training

    def new_params(self) -> dict[str, object]:
        """How each was set up that is known to train since the last call."""
        known = [name for name in self._params if self.train_the_model(name)]
        return {key: value for name in known for key, value in self._params.pop(name).items()}

    def learning_rates(self) -> dict[str, float]:
        """The present one of each by attribute, also of those not known to train."""
        return {
            name: scalar(optimizer.learning_rate)
            for name, optimizer in _held_by(self._model).items()
        }

    def named(self, rates: Mapping[str, float]) -> dict[str, float]:
        """``learning_rate`` and ``<attribute>_learning_rate`` of those that train."""
        return {
            "learning_rate" if name == MAIN else f"{name}_learning_rate": rate
            for name, rate in rates.items()
            if self.train_the_model(name)
        }


def steps_taken(model: Any) -> int:
    """How often the model's optimizer has changed the weights, in earlier fits too."""
    return 0 if model.optimizer is None else _iterations(model.optimizer)


def _iterations(optimizer: Any) -> int:
    return int(scalar(optimizer.iterations))


def _held_by(model: Any) -> dict[str, Any]:
    """The optimizers that a model has now, by attribute."""
    return {
        name.strip("_"): value
        for name, value in vars(model).items()
        if isinstance(value, keras.optimizers.Optimizer)
    }


def _is_stepped_by_keras(model: Any) -> bool:
    has_weights = not model.built or bool(model.trainable_weights)
    return has_weights and type(model).train_step is keras.Model.train_step


def _params_of(attribute: str, optimizer: Any) -> dict[str, object]:
    """Class and configuration: ``optimizer_name``, ``optimizer_momentum``."""
    return _flattened(attribute, {**optimizer.get_config(), "name": type(optimizer).__name__})


def _flattened(prefix: str, config: Mapping[str, Any]) -> dict[str, object]:
    """A configuration by ``<prefix>_<key>``; a schedule within it gives its class and its own."""
    params: dict[str, object] = {}
    for key, value in config.items():
        name = f"{prefix}_{key}"
        if isinstance(value, Mapping) and {"class_name", "config"} <= value.keys():
            params[name] = value["class_name"]
            params.update(_flattened(name, value["config"]))
        elif key == "learning_rate" and isinstance(value, float):
            params[name] = float(f"{value:.7g}")  # kept in float32: 0.001, not 0.00100000005
        else:
            params[name] = value
    return params
