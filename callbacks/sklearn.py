"""scikit-learn: each outermost ``fit`` that a user's line asks for is a run.

Pipelines, searches, ensembles and user-defined estimators are one run each; transformers on their
own are none. A loop over ``partial_fit`` is one run for each estimator, one step for each call.

Logged after the fit:

* params: ``get_params(deep=True)``; of a search its own, with ``best_<name>`` of the winner;
* ``epoch_loss`` with step = iteration, where the estimator keeps a loss curve (multi-layer
  perceptrons, gradient boosting, histogram gradient boosting with early stopping), and other
  curves under their attribute's name. With ``warm_start`` only what this fit added;
* what the fit found: ``best_cv_score``, ``n_iter`` (the largest, where there are several), ...;
* tags ``estimator_name`` and ``estimator_class``.

Of a pipeline the last step speaks, of a search the estimator that was refitted.
Nothing is predicted or scored for the log.
"""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from autolog import guard, hooks, recorder
from autolog.callbacks import estimators
from autolog.recorder.training import status_of
from autolog.records import Status

if TYPE_CHECKING:
    from autolog.recorder import Training

Estimator = TypeVar("Estimator")

_METHODS = ("fit", "partial_fit", "fit_predict", "fit_transform")

_enabled = False
_marked: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
"""Estimators that `autologged` named, by id: not by hash, which may be the user's code."""


# -- on and off ------------------------------------------------------------------------------------


def instrument(module: ModuleType) -> None:
    """Log every estimator of ``sklearn.base``, those of classes defined later included."""
    global _enabled
    _enabled = True
    for cls in _family(module.BaseEstimator):
        _wrap_methods(cls)
    _watch_subclasses(module.BaseEstimator)


def uninstrument() -> None:
    """Put every method back and end the runs of ``partial_fit`` loops."""
    global _enabled
    _enabled = False
    for number in list(_loops):
        _end_loop(number, Status.FINISHED)
    base = sys.modules.get("sklearn.base")
    if base is None:
        return
    if isinstance(vars(base.BaseEstimator).get("__init_subclass__"), _Watch):
        del base.BaseEstimator.__init_subclass__
    for cls in _family(base.BaseEstimator):
        for owner, name in _methods(cls):
            hooks.unwrap(owner, name)


def autologged(estimator: Estimator) -> Estimator:
    """The same estimator, marked: its fits are logged, with or without ``autolog.enable()``.

    The mark belongs to this object alone; clones, copies and pickles do not carry it.
    Raises `TypeError` for an object without a ``fit`` method.
    """
    if not callable(getattr(estimator, "fit", None)):
        raise TypeError(f"autologged() takes an estimator; {type(estimator).__name__} has no fit()")
    for cls in type(estimator).__mro__:
        _wrap_methods(cls)
    _marked[id(estimator)] = estimator
    return estimator


def _family(base: type) -> set[type]:
    """A class and all its subclasses that are loaded."""
    found, left = {base}, [base]
    while left:
        fresh: set[type] = set(left.pop().__subclasses__()) - found
        found |= fresh
        left.extend(fresh)
    return found


class _Watch(classmethod):  # type: ignore[type-arg]
    """Our ``BaseEstimator.__init_subclass__``."""


def _watch_subclasses(base: type) -> None:
    if "__init_subclass__" in vars(base):
        return

    def init_subclass(cls: type, **options: Any) -> None:
        super(base, cls).__init_subclass__(**options)  # type: ignore[arg-type]
        with guard.shield("sklearn.subclass"):
            _wrap_methods(cls)

    base.__init_subclass__ = _Watch(init_subclass)  # type: ignore[assignment]


def _wrap_methods(cls: type) -> None:
    for owner, name in _methods(cls):
        hooks.wrap(owner, name, _logged)


def _methods(cls: type) -> Iterator[tuple[object, str]]:
    """What to replace of a class's own training methods: owner and attribute.

    A method under ``available_if`` stands in the attribute ``fn`` of a descriptor.
    """
    for name in _METHODS:
        method = vars(cls).get(name)
        if inspect.isfunction(method):
            yield cls, name
        elif inspect.isfunction(getattr(method, "fn", None)):
            yield method, "fn"


def _logged(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that reports to `call`.

    joblib sends classes of ``__main__`` by value to its workers, their methods included. So the
    wrapper may hold nothing but the method, and must run where autolog is absent.
    """

    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            from autolog.callbacks.sklearn import call
        except Exception:  # noqa: BLE001 - the user's training comes first
            return method(self, *args, **kwargs)
        return call(method, self, args, kwargs)

    return wrapper


# -- which calls are trainings ---------------------------------------------------------------------


class _Thread(threading.local):
    depth = 0
    """Training methods that this thread is inside of."""


_thread = _Thread()
_outermost: set[int] = set()
"""Threads of the user's own, not of a pool, that are inside a training method."""

_TRANSPARENT = frozenset(
    [__name__, "sklearn.base", "sklearn.utils._set_output", "sklearn.utils._available_if"]
)
"""Modules whose frames stand between a user's line and the method it calls."""


def call(
    method: Callable[..., Any], estimator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run a training method, and log it if it is the outermost one and a user's line calls it."""
    if _thread.depth or not (_enabled or _marked.get(id(estimator)) is estimator):
        return method(estimator, *args, **kwargs)
    in_pool = _is_pool_thread()
    is_inner = in_pool and bool(_outermost)
    if not in_pool:
        _outermost.add(threading.get_ident())
    _thread.depth += 1
    try:
        if is_inner or not _is_training(estimator):
            return method(estimator, *args, **kwargs)
        if method.__name__ == "partial_fit":
            return _train_step(method, estimator, args, kwargs)
        return _train(method, estimator, args, kwargs)
    finally:
        _thread.depth -= 1
        _outermost.discard(threading.get_ident())


def _is_pool_thread() -> bool:
    """True in a thread of joblib's threading backend (and of ``multiprocessing.pool``)."""
    return type(threading.current_thread()).__module__ == "multiprocessing.dummy"


def _is_training(estimator: Any) -> bool:
    """True for a training that a user's line asks for and no other training contains."""
    with guard.shield("sklearn.call"):
        return not (
            recorder.get().in_training
            or _is_called_by_sklearn()
            or estimators.is_transformer(estimator)
        )
    return False


def _is_called_by_sklearn() -> bool:
    """True for the fits of folds and candidates, and for those inside metrics."""
    frame = inspect.currentframe()
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module not in _TRANSPARENT:
            return module.startswith("sklearn.")
        frame = frame.f_back
    return False


# -- one training ----------------------------------------------------------------------------------


def _train(
    method: Callable[..., Any], estimator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    _end_loop(id(estimator), Status.FINISHED)
    earlier = _lengths_to_continue(estimator)
    training = _begin(estimator, holds=True)
    with training:
        try:
            result = method(estimator, *args, **kwargs)
        finally:
            _log_settings(training, estimator)
        _log_outcome(training, estimator, earlier)
    return result


def _begin(estimator: Any, *, holds: bool) -> Training:
    name = type(estimator).__name__
    return recorder.get().begin_training(estimator, flavor="sklearn", name=name, holds=holds)


def _log_settings(training: Training, estimator: Any) -> None:
    """Log what the estimator was told; after the fit, which may complete it."""
    if training.silent:
        return
    with guard.shield("sklearn.settings"):
        cls = type(estimator)
        training.set_tags(
            {
                "estimator_name": cls.__name__,
                "estimator_class": f"{cls.__module__}.{cls.__qualname__}",
            }
        )
        training.log_params(estimator.get_params(deep=not estimators.is_search(estimator)))


def _log_outcome(training: Training, estimator: Any, earlier: Mapping[str, int]) -> None:
    """Log what a fit that succeeded left in the estimator's attributes."""
    if training.silent:
        return
    with guard.shield("sklearn.outcome"):
        if estimators.is_search(estimator):
            best = getattr(estimator, "best_params_", {})
            training.log_params({f"best_{name}": value for name, value in best.items()})
        speaker = estimators.speaker(estimator)
        for iteration, values in enumerate(_added(estimators.curves(speaker), earlier)):
            training.log_metrics(values, training.first_epoch + iteration)
        findings = {**estimators.findings(speaker), **estimators.findings(estimator)}
        if findings:
            training.log_metrics(findings, training.first_epoch)


def _lengths_to_continue(estimator: Any) -> dict[str, int]:
    """Lengths of the curves that a fit with ``warm_start`` is going to continue."""
    with guard.shield("sklearn.warm_start"):
        speaker = estimators.speaker(estimator)
        if getattr(speaker, "warm_start", False) and not estimators.is_search(estimator):
            return {name: len(curve) for name, curve in estimators.curves(speaker).items()}
    return {}


def _added(
    curves: Mapping[str, Sequence[float]], earlier: Mapping[str, int]
) -> Iterator[dict[str, float]]:
    """The values of each iteration of this fit."""
    fresh: dict[str, Sequence[float]] = {}
    for name, curve in curves.items():
        start = earlier.get(name, 0)
        fresh[name] = curve[start if start <= len(curve) else 0 :]
    for iteration in range(max(map(len, fresh.values()))):
        yield {name: curve[iteration] for name, curve in fresh.items() if iteration < len(curve)}


# -- loops over partial_fit ------------------------------------------------------------------------


class _Loop:
    """The calls of ``partial_fit`` on one estimator, which share a training."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.calls = 0
        self.samples = 0

    @property
    def is_over(self) -> bool:
        """True when somebody else has ended the run."""
        return self.training.run is None or self.training.run.status is not None


_loops: dict[int, _Loop] = {}
"""By the id of an estimator that is alive: its finalizer ends the loop."""


def _train_step(
    method: Callable[..., Any], estimator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    loop, curve_before = None, 0
    with guard.shield("sklearn.partial_fit"):
        loop, curve_before = _loop_of(estimator), len(estimators.losses(estimator))
    try:
        result = method(estimator, *args, **kwargs)
    except BaseException as error:
        _end_loop(id(estimator), status_of(error))
        raise
    if loop is not None:
        with guard.shield("sklearn.partial_fit"):
            _log_step(loop, estimator, curve_before, _rows(*args, **kwargs))
    return result


def _loop_of(estimator: Any) -> _Loop:
    loop = _loops.get(id(estimator))
    if loop is None or loop.is_over:
        loop = _Loop(_begin(estimator, holds=False))
        if not loop.training.silent:
            _loops[id(estimator)] = loop
            end = weakref.finalize(estimator, _end_loop, id(estimator), Status.FINISHED)
            end.atexit = False
    return loop


def _end_loop(number: int, status: str) -> None:
    loop = _loops.pop(number, None)
    if loop is not None:
        loop.training.end(status)


def _log_step(loop: _Loop, estimator: Any, curve_before: int, rows: int) -> None:
    if loop.calls == 0:
        _log_settings(loop.training, estimator)
    loop.samples += rows
    values: dict[str, float] = {"samples_seen": loop.samples}
    losses = estimators.losses(estimator)
    if len(losses) > curve_before:
        values["epoch_loss"] = losses[-1]
    loop.training.log_metrics(values, loop.training.first_epoch + loop.calls)
    loop.calls += 1


def _rows(X: Any, *_: Any, **__: Any) -> int:  # noqa: N803 - scikit-learn's name
    """Number of samples of a call."""
    return int(X.shape[0]) if hasattr(X, "shape") else len(X)
