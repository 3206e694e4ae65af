"""Which calls of scikit-learn count: the outermost ones that a user's line makes."""

from __future__ import annotations

import contextlib
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from autolog import guard, recorder
from autolog.callbacks.sklearn import loops, patches, scores, trainings

logged_class: type | None = None
"""``BaseEstimator`` while every estimator is logged."""

marked: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
"""Estimators that `autologged` named, by id: not by hash, which may be the user's code."""


class _Thread(threading.local):
    depth = 0
    """Calls that this thread is inside of."""


_thread = _Thread()
_outermost: set[int] = set()
"""Threads of the user's own, not of a pool, that are inside a call."""

_TRANSPARENT = frozenset(
    [
        *(__name__, "autolog.callbacks.sklearn.patches", "contextlib"),
        *("sklearn.base", "sklearn.utils._set_output", "sklearn.utils._available_if"),
    ]
)
"""Modules whose frames stand between a user's line and the method it calls."""


def call(
    name: str, method: Callable[..., Any], estimator: Any, /, *args: Any, **kwargs: Any
) -> Any:
    """Run a method of an estimator, and log it if it is the outermost one and the user's own.

    Arguments are handed on as they came, never as a tuple: MLflow names a score after the variable
    that it finds by following them up the stack.
    """
    if _thread.depth or not _is_logged(estimator):
        return method(estimator, *args, **kwargs)
    if name in patches.PREDICTING:
        return scores.predict(method, estimator, *args, **kwargs)
    with outermost() as is_free:
        if not is_free:
            return method(estimator, *args, **kwargs)
        if name == "score":
            return scores.score(method, estimator, *args, **kwargs)
        if name == "partial_fit":
            return loops.train_step(method, estimator, *args, **kwargs)
        loops.end(id(estimator))
        return trainings.train(method, estimator, *args, **kwargs)


def _is_logged(estimator: Any) -> bool:
    if logged_class is not None and isinstance(estimator, logged_class):
        return True
    return marked.get(id(estimator)) is estimator


@contextlib.contextmanager
def outermost(transparent: AbstractSet[str] = frozenset()) -> Iterator[bool]:
    """All calls inside, in this thread and in the pools it waits for, are a part of this one.

    Yields whether it is one of the user's own: no other training contains it, and no line of
    scikit-learn makes it, of a module that is not `transparent`.
    """
    in_pool, thread = _is_pool_thread(), threading.get_ident()
    is_inner = _thread.depth > 0 or (in_pool and bool(_outermost))
    is_first = not (_thread.depth or in_pool)
    if is_first:
        _outermost.add(thread)
    _thread.depth += 1
    try:
        yield not is_inner and _is_asked_for(transparent)
    finally:
        _thread.depth -= 1
        if is_first:
            _outermost.discard(thread)


def _is_pool_thread() -> bool:
    """True in a thread of joblib's threading backend (and of ``multiprocessing.pool``)."""
    return type(threading.current_thread()).__module__ == "multiprocessing.dummy"


def is_users(transparent: AbstractSet[str] = frozenset()) -> bool:
    """Whether a line of the user's makes this call, outside of every other; as `outermost`."""
    return not _thread.depth and _is_asked_for(transparent)


def passes_mlflow(transparent: AbstractSet[str]) -> bool:
    """Whether this call of the user's goes through a wrapper of MLflow's autologging."""
    return _caller(_TRANSPARENT | transparent).is_wrapped


def _is_asked_for(transparent: AbstractSet[str]) -> bool:
    with guard.shield("sklearn.call"):
        is_inside = recorder.get().nesting.in_training
        return not (is_inside or _is_called_by_sklearn(_TRANSPARENT | transparent))
    return False


def _is_called_by_sklearn(transparent: AbstractSet[str]) -> bool:
    """True for the fits of folds and candidates, for those inside metrics, and MLflow's scoring.

    Where MLflow's own autologging is on, its wrappers stand between any line and the method.
    """
    return _caller(transparent).module.startswith(("sklearn.", "mlflow."))


class _Caller(NamedTuple):
    module: str
    is_wrapped: bool
    """Whether a wrapper of MLflow's stands between its line and the call."""


def _caller(transparent: AbstractSet[str]) -> _Caller:
    frame, is_wrapped = inspect.currentframe(), False
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if _is_wrapper_of_mlflow(module):
            is_wrapped = True
        elif module not in transparent:
            return _Caller(module, is_wrapped)
        frame = frame.f_back
    return _Caller("", is_wrapped)


def _is_wrapper_of_mlflow(module: str) -> bool:
    return module.startswith("mlflow.") and module != "mlflow.sklearn.utils"
