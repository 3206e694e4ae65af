"""What models and arguments say about themselves."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import keras

from autolog.callbacks.datasets import EVAL, TRAIN, Used

if TYPE_CHECKING:
    import inspect

_NO_PARAMS = frozenset(
    ["self", "x", "y", "sample_weight", "validation_data", "callbacks", "verbose"]
)
"""Arguments of ``fit`` that are data or say nothing about the training."""

_DEFAULT_BATCH_SIZE = 32
"""What Keras takes for arrays when ``fit`` is given no batch size."""

_PASSING_ON = ("CacheDataset", "_OptionsDataset", "_PrefetchDataset", "_RepeatDataset")
"""Stages of tf.data behind which the batches are those from before."""


# -- arguments of fit ------------------------------------------------------------------------------


def fit_params(bound: inspect.BoundArguments) -> dict[str, object]:
    """The arguments of a ``fit``, its defaults included."""
    full = copy.copy(bound)
    full.arguments = dict(bound.arguments)
    full.apply_defaults()
    params = {name: v for name, v in full.arguments.items() if name not in _NO_PARAMS}
    return {**params, "batch_size": _batch_size(full.arguments)}


def data_shapes(bound: inspect.BoundArguments) -> dict[str, str]:
    """The shapes of the arrays that a ``fit`` is given, as a tag; of parts by ``x/<name>``."""
    shapes = {**_shapes("x", bound.arguments.get("x")), **_shapes("y", bound.arguments.get("y"))}
    text = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    return {"autolog.data_shapes": text} if text else {}


def _shapes(name: str, data: Any) -> dict[str, Any]:
    if hasattr(data, "shape"):
        return {name: data.shape}
    if isinstance(data, (list, tuple)):
        data = dict(enumerate(data))
    if not isinstance(data, Mapping):
        return {}
    parts = (_shapes(f"{name}/{key}", part) for key, part in data.items())
    return {name: shape for part in parts for name, shape in part.items()}


def used_data(arguments: Mapping[str, Any]) -> list[Used]:
    """What a ``fit`` trains on, and what it validates with."""
    validation = arguments.get("validation_data")
    pair = list(validation) if isinstance(validation, (list, tuple)) else [validation]
    x, y, *_ = [*pair, None, None]
    return [
        Used(TRAIN, _by_part(arguments.get("x")), _by_part(arguments.get("y"))),
        Used(EVAL, _by_part(x), _by_part(y)),
    ]


def _by_part(data: Any) -> Any:
    """Arrays of a list, one for each input or output of a model, by their numbers."""
    is_list = isinstance(data, (list, tuple)) and data and hasattr(data[0], "shape")
    return dict(enumerate(data)) if is_list else data


def _batch_size(arguments: Mapping[str, Any]) -> object:
    """Samples a batch; None where one would have to be taken from the data to know."""
    given, x = arguments.get("batch_size"), arguments["x"]
    if given is not None:
        return given
    if _shapes("x", x):
        return _DEFAULT_BATCH_SIZE
    while type(x).__name__ in _PASSING_ON:
        x = x._input_dataset  # noqa: SLF001 - nothing public leads there
    size = getattr(x, "batch_size", None)
    return int(x._batch_size) if size is None and hasattr(x, "_batch_size") else size  # noqa: SLF001


# -- the rest --------------------------------------------------------------------------------------


def summary(model: Any) -> str:
    """What ``model.summary()`` prints."""
    lines: list[str] = []
    model.summary(print_fn=lambda line, *_, **__: lines.append(line))
    return "\n".join(lines)


def numbers(logs: Mapping[str, Any] | None) -> dict[str, float]:
    """The entries of Keras' logs that are one number."""
    return {name: scalar(value) for name, value in (logs or {}).items() if _is_one_number(value)}


def _is_one_number(value: Any) -> bool:
    return isinstance(value, Real) or getattr(value, "shape", None) == ()


def scalar(value: Any) -> float:
    """A number, wherever the backend keeps it."""
    if isinstance(value, Real):
        return float(value)
    # Not convert_to_numpy, which warns of deprecated calls within Keras; and not of the variable
    # itself, which Keras 3.3 leaves as it is.
    held = getattr(value, "value", value)
    return float(keras.ops.convert_to_tensor(value if callable(held) else held))
