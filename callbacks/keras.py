"""Keras 3 and tf.keras: each ``fit`` is a run, and so is an ``evaluate`` outside of one.

Logged of a fit, with step = epoch:

* ``epoch_loss``, the mean of the epoch's batch losses weighted by batch size, as Keras' own
  ``loss``; every other metric, those of the validation too, under Keras' name;
* ``learning_rate``, with which the epoch began;
* with ``log_every_n_steps=N`` also ``batch_loss`` at every N-th optimizer step, counted from 1 by
  ``optimizer.iterations``: the loss of that batch alone (with ``steps_per_execution`` the mean of
  that execution). Keras reports running means, so it comes from what the batch added to the
  model's loss metric, in float32. Not on the JAX backend, which keeps that metric out of sight,
  and not where ``fit`` is given a ``CallbackList``;
* params: the arguments of ``fit``, ``steps`` an epoch, ``optimizer_name`` and the optimizer's
  configuration as ``optimizer_<key>``;
* the artifact ``model_summary.txt``.

Of an evaluation: Keras' metrics as ``test_<name>``.

Load this module only where Keras is wanted: it imports it, and with it the backend.
"""

# ruff: noqa: ARG002 - callbacks take what Keras passes

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from numbers import Real
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

import keras

from autolog import guard, hooks, recorder

if TYPE_CHECKING:
    from autolog.recorder import Training

_enabled = False

_NO_PARAMS = frozenset(
    ["self", "x", "y", "sample_weight", "validation_data", "callbacks", "verbose"]
)
"""Arguments of ``fit`` that are data or say nothing about the training."""

_DEFAULT_BATCH_SIZE = 32
"""What Keras takes for arrays when ``fit`` is given no batch size."""


# -- on and off ------------------------------------------------------------------------------------


def instrument(module: ModuleType) -> None:
    """Log every training of the models of ``keras``."""
    global _enabled
    _enabled = True
    _wrap_methods(module.Model)


def uninstrument() -> None:
    """Put ``fit`` and ``evaluate`` back."""
    global _enabled
    _enabled = False
    for name in ("fit", "evaluate"):
        hooks.unwrap(_owner(keras.Model, name), name)


def _wrap_methods(model_class: type) -> None:
    for name in ("fit", "evaluate"):
        hooks.wrap(_owner(model_class, name), name, _logged)


def _owner(model_class: type, name: str) -> type:
    """The class that defines a method: the trainer of the backend."""
    return next(cls for cls in model_class.__mro__ if name in vars(cls))


# -- the callback ----------------------------------------------------------------------------------


class AutologCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Logs the trainings it is passed to: ``model.fit(x, y, callbacks=[AutologCallback()])``.

    Works with or without ``autolog.enable()``, which adds no second one beside it.
    It may be used for several fits, one after another, and is called after the other callbacks
    wherever it stands in the list. Making one puts a wrapper round ``keras.Model.fit``, through
    which it learns the arguments of the fit and whether an exception ended it; other fits pass
    through unlogged.
    """

    def __init__(self) -> None:
        super().__init__()
        self._training: Training | None = None
        self._fit_params: Mapping[str, object] = {}
        self._is_evaluation = False
        self._epoch_offset: int | None = None
        self._learning_rate: float | None = None
        self._has_summary = False
        _wrap_methods(keras.Model)

    @property
    def training(self) -> Training | None:
        """The training that is going on, if any."""
        return self._training

    def expect(self, fit_params: Mapping[str, object]) -> None:
        """Take note of the arguments of the ``fit`` that comes next."""
        self._fit_params = fit_params

    def abandon(self, error: BaseException) -> None:
        """End the run of a training that an exception has ended."""
        if self._training is not None:
            self._training.__exit__(type(error), error, error.__traceback__)
            self._training = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Open the run, with params and summary."""
        with guard.shield("keras.on_train_begin"):
            self._begin()
            self._is_evaluation, self._has_summary, self._epoch_offset = False, False, None
            if self._is_silent:
                return
            training = self._open
            progress = {key: value for key, value in self.params.items() if key != "verbose"}
            training.log_params({**progress, **self._fit_params})
            training.log_params(_optimizer_params(self.model.optimizer))
            self._log_summary()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Read the learning rate; at the first epoch, find the place of the fit on the axis."""
        if self._is_silent:
            return
        with guard.shield("keras.on_epoch_begin"):
            if self._epoch_offset is None:
                self._epoch_offset = max(0, self._open.first_epoch - epoch)
            self._learning_rate = _learning_rate(self.model.optimizer)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Log what Keras reports of the epoch."""
        if self._is_silent:
            return
        with guard.shield("keras.on_epoch_end"):
            metrics = _numbers({"learning_rate": self._learning_rate, **(logs or {})})
            if "loss" in metrics:
                metrics["epoch_loss"] = metrics["loss"]
            self._open.log_metrics(metrics, epoch + (self._epoch_offset or 0))
            self._log_summary()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """End the run."""
        self._end()

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Open a run for an evaluation, unless it is the validation of a fit."""
        if self._training is None:
            with guard.shield("keras.on_test_begin"):
                self._is_evaluation = True
                self._begin()

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Log what the evaluation found, at the epoch the model has come to."""
        if not self._is_evaluation or self._training is None:
            return
        if not self._is_silent:
            with guard.shield("keras.on_test_end"):
                metrics = {f"test_{name}": v for name, v in _numbers(logs or {}).items()}
                self._open.log_metrics(metrics, max(0, self._open.first_epoch - 1))
        self._end()

    @property
    def _open(self) -> Training:
        assert self._training is not None
        return self._training

    @property
    def _is_silent(self) -> bool:
        return self._training is None or self._training.silent

    def _begin(self) -> None:
        model = self.model
        self._training = recorder.get().begin_training(
            model, flavor="keras", name=type(model).__name__
        )

    def _end(self) -> None:
        if self._training is not None:
            self._training.end()
            self._training = None

    def _log_summary(self) -> None:
        """Once a fit, as soon as the model has its weights."""
        if self._has_summary or not self.model.built:
            return
        self._has_summary = True
        lines: list[str] = []
        self.model.summary(print_fn=lambda line, *_, **__: lines.append(line))
        self._open.log_text("\n".join(lines), "model_summary.txt")


class _BatchLoss(keras.callbacks.Callback):  # type: ignore[misc]
    """Logs ``batch_loss`` into the training of another callback.

    A class of its own, since Keras calls callbacks out of step with the device only while none
    of them has a batch hook. It reads the device at the batches it logs and at those before.
    """

    def __init__(self, owner: AutologCallback, every: int) -> None:
        super().__init__()
        self._owner, self._every = owner, every
        self._loss: Any = None
        self._batches_a_step = self._batches_a_call = 1
        self._first_step = self._step = 0
        self._total = self._count = 0.0

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        with guard.shield("keras.batch_loss"):
            model = self.model
            means = [m for m in model.metrics if isinstance(m, keras.metrics.Mean)]
            self._loss = next((mean for mean in means if mean.name == "loss"), None)
            accumulated = getattr(model.optimizer, "gradient_accumulation_steps", None)
            self._batches_a_step = accumulated or 1
            self._batches_a_call = model.steps_per_execution

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        with guard.shield("keras.batch_loss"):
            self._first_step = self._step = _steps_taken(self._model)
            self._total = self._count = 0.0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        training = self._owner.training
        if self._loss is None or training is None or training.silent:
            return
        before = self._step
        self._step = self._first_step + (batch + 1) // self._batches_a_step
        is_due = self._reaches_point(before, self._step)
        if not (is_due or self._reaches_point(self._step, self._step + self._batches_a_call)):
            return
        with guard.shield("keras.batch_loss"):
            total, count = _scalar(self._loss.total), _scalar(self._loss.count)
            if is_due and count > self._count:
                value = (total - self._total) / (count - self._count)
                training.log_batch_metrics({"batch_loss": value}, _steps_taken(self._model))
            self._total, self._count = total, count

    def _reaches_point(self, before: int, after: int) -> bool:
        return after // self._every > before // self._every


# -- calls of fit and evaluate ---------------------------------------------------------------------


def _logged(method: Callable[..., Any]) -> Callable[..., Any]:
    """``fit`` or ``evaluate`` with our callback among the user's."""
    signature = inspect.signature(method)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        watched = None
        with guard.shield(f"keras.{method.__name__}"):
            watched = _watch(signature, args, kwargs)
        if watched is None:
            return method(*args, **kwargs)
        with watched as bound:
            return method(*bound.args, **bound.kwargs)

    return wrapper


def _watch(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> _Watched | None:
    """A call to log; None for one that is not, or that Keras is going to refuse."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return None
    given = bound.arguments.get("callbacks")
    explicit = next((c for c in _callbacks_in(given) if isinstance(c, AutologCallback)), None)
    if explicit is None and not _enabled:
        return None
    if explicit is not None and explicit.training is not None and _is_list_of_keras(given):
        return None  # the validation of a fit
    return _Watched(bound, explicit or AutologCallback())


def _callbacks_in(given: Any) -> list[Any]:
    """The callbacks of an argument ``callbacks``, whatever its shape."""
    if _is_list_of_keras(given):
        return list(given.callbacks)
    return list(keras.tree.flatten(given or []))


def _is_list_of_keras(given: Any) -> bool:
    return isinstance(given, keras.callbacks.CallbackList)


class _Watched:
    """One call of ``fit`` or ``evaluate`` in which an `AutologCallback` takes part."""

    def __init__(self, bound: inspect.BoundArguments, callback: AutologCallback) -> None:
        self._bound, self._callback = bound, callback
        self._given: Any = bound.arguments.get("callbacks")
        self._present = _callbacks_in(self._given)
        ours: list[Any] = [callback]
        if "epochs" in bound.signature.parameters:
            callback.expect(_fit_params(bound))
            every = recorder.get().settings.log_every_n_steps
            # A CallbackList has settled already whether batch hooks may run out of step.
            if every is not None and not _is_list_of_keras(self._given):
                ours.append(_BatchLoss(callback, every))
        self._with_ours = [*(c for c in self._present if c is not callback), *ours]

    def __enter__(self) -> inspect.BoundArguments:
        """The arguments to call with: a list of the user's is replaced, not changed."""
        if _is_list_of_keras(self._given):
            self._given.callbacks[:] = self._with_ours
            self._given.set_model(self._given.model)
            self._given.set_params(self._given.params)
        else:
            self._bound.arguments["callbacks"] = self._with_ours
        return self._bound

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if _is_list_of_keras(self._given):
            self._given.callbacks[:] = self._present
        if error is not None:
            self._callback.abandon(error)


def _fit_params(bound: inspect.BoundArguments) -> dict[str, object]:
    full = copy.copy(bound)
    full.arguments = dict(bound.arguments)
    full.apply_defaults()
    params = {name: v for name, v in full.arguments.items() if name not in _NO_PARAMS}
    return {**params, "batch_size": _batch_size(full.arguments)}


def _batch_size(arguments: Mapping[str, Any]) -> object:
    """Samples a batch; None where only the data knows."""
    given, x = arguments.get("batch_size"), arguments["x"]
    if given is not None:
        return given
    if hasattr(x, "batch_size"):
        return x.batch_size
    leaves = keras.tree.flatten(x)
    return _DEFAULT_BATCH_SIZE if all(hasattr(leaf, "shape") for leaf in leaves) else None


# -- what the model and its optimizer say ----------------------------------------------------------


def _optimizer_params(optimizer: Any) -> dict[str, object]:
    config = optimizer.get_config()
    config["name"] = type(optimizer).__name__
    return _flattened("optimizer", config)


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


def _learning_rate(optimizer: Any) -> float:
    return _scalar(optimizer.learning_rate)


def _steps_taken(model: Any) -> int:
    return int(_scalar(model.optimizer.iterations))


def _scalar(value: Any) -> float:
    return float(keras.ops.convert_to_numpy(value))


def _numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """The entries of Keras' logs that are one number."""
    return {name: float(value) for name, value in logs.items() if isinstance(value, Real)}
