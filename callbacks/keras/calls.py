"""Which calls of ``fit`` and ``evaluate`` are logged, and how ours joins the user's callbacks."""

from __future__ import annotations

import inspect
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import keras

from autolog import guard, hooks, recorder
from autolog.callbacks.keras.batches import BatchValues
from autolog.callbacks.keras.observer import Observer
from autolog.callbacks.keras.reading import data_shapes, fit_params, used_data

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_METHODS = ("fit", "evaluate")

_serves_all = False
_explicit: weakref.WeakSet[Observer] = weakref.WeakSet()
"""Observers that the user made."""
_wrapped: list[tuple[type, str]] = []


def serve_all(*, on: bool) -> None:
    """Log every call, or only those that an observer of the user's is passed to."""
    global _serves_all
    _serves_all = on
    if on:
        _wrap_methods()
    elif not _explicit:
        _unwrap_methods()


def serve(observer: Observer) -> None:
    """Log the calls that this observer is passed to."""
    with guard.shield("keras.serve"):
        _explicit.add(observer)
        _wrap_methods()


def _wrap_methods() -> None:
    for name in _METHODS:
        # Where the method is defined: in the trainer of the backend, or above it by mlflow.
        owner = next(cls for cls in keras.Model.__mro__ if name in vars(cls))
        hooks.wrap(owner, name, _logged)
        if (owner, name) not in _wrapped:
            _wrapped.append((owner, name))


def _unwrap_methods() -> None:
    while _wrapped:
        hooks.unwrap(*_wrapped.pop())


def _logged(method: Callable[..., Any]) -> Callable[..., Any]:
    """``fit`` or ``evaluate`` with an observer among the user's callbacks."""
    signature = inspect.signature(method)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = None
        with guard.shield(f"keras.{method.__name__}"):
            call = _call_to_log(signature, args, kwargs)
        if call is None:
            return method(*args, **kwargs)
        with call:
            return method(*call.bound.args, **call.bound.kwargs)

    return wrapper


def _call_to_log(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> _Call | None:
    """A call to log; None for one that is not, or that Keras is going to refuse."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return None
    given: Any = bound.arguments.get("callbacks")
    is_list_of_keras = isinstance(given, keras.callbacks.CallbackList)
    flat = given if is_list_of_keras else keras.callbacks.CallbackList(given)
    observer = next((c for c in flat.callbacks if isinstance(c, Observer)), None)
    if observer is None and not _serves_all:
        return None
    if observer is not None and observer.is_taken:
        return None  # the validation of a fit, or a second wrapper of ours within mlflow's
    call = _JoinedCall if is_list_of_keras else _Call
    return call(bound, list(flat.callbacks), observer or Observer())


class _Call:
    """One call in which an observer takes part. What the user passed is replaced, not changed."""

    def __init__(
        self, bound: inspect.BoundArguments, present: list[Any], observer: Observer
    ) -> None:
        self.bound = bound
        self._present, self._observer = present, observer
        others = [each for each in present if each is not observer]
        self._is_fit = "epochs" in bound.signature.parameters
        if self._is_fit:
            with guard.shield("keras.arguments"):
                data = partial(used_data, bound.arguments)
                observer.expect(fit_params(bound), data_shapes(bound), data, others)
        self._join([*others, observer])

    def _join(self, callbacks: list[Any]) -> None:
        every = recorder.get().settings.log_every_n_steps
        # JAX keeps the state of model and optimizer out of sight until an epoch is over.
        if self._is_fit and every is not None and keras.backend.backend() != "jax":
            callbacks.append(BatchValues(self._observer, every))
        self.bound.arguments["callbacks"] = callbacks

    def _leave(self) -> None:
        """Nothing is to be put back."""

    def __enter__(self) -> None:
        self._observer.is_taken = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._observer.is_taken = False
        with guard.shield("keras.leave"):
            self._leave()
            if error is not None:
                self._observer.abandon(error)


class _JoinedCall(_Call):
    """One call with a ``CallbackList``, which holds the observer for that time.

    Without values of batches: the list has settled already whether batch hooks may run out of step.
    """

    def _join(self, callbacks: list[Any]) -> None:
        given = self.bound.arguments["callbacks"]
        given.callbacks[:] = callbacks
        self._observer.set_model(self.bound.arguments["self"])
        self._observer.set_params(getattr(given, "params", None))  # older Keras sets none

    def _leave(self) -> None:
        self.bound.arguments["callbacks"].callbacks[:] = self._present
