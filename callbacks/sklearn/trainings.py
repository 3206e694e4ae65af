"""One fit and its run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autolog import guard, recorder
from autolog.callbacks import datasets
from autolog.callbacks.datasets import TRAIN, Used
from autolog.callbacks.sklearn import (
    estimators,
    models,
    neighbours,
    scores,
    searches,
    training_metrics,
)
from autolog.callbacks.sklearn.data import Data

if TYPE_CHECKING:
    from autolog.recorder import Training


_running: dict[int, Training] = {}
"""By the id of the estimator that is being fitted."""


def train(method: Callable[..., Any], estimator: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Fit, and log it; a transformer on its own is fitted only."""
    training, data, earlier = None, Data(), {}
    with guard.shield("sklearn.fit"):
        data = Data.of_call(method, args, kwargs)
        earlier = _lengths_to_continue(estimator)
    with guard.shield("sklearn.begin"):
        if not estimators.is_transformer(estimator):
            training = begin(estimator)
    if training is None:
        return method(estimator, *args, **kwargs)
    with training:
        log_data(training, estimator, data)
        _running[id(estimator)] = training
        started = time.perf_counter()
        try:
            result = method(estimator, *args, **kwargs)
        finally:
            seconds = time.perf_counter() - started
            _running.pop(id(estimator), None)
            log_settings(training, estimator)
        log_outcome(training, estimator, earlier, data, seconds)
    return result


def of(estimator: Any) -> Training | None:
    """The training that `train` has begun, while the estimator is being fitted."""
    return _running.get(id(estimator))


def begin(estimator: Any, *, holds: bool = True) -> Training:
    """A training of an estimator begins."""
    name = type(estimator).__name__
    return recorder.get().begin_training(estimator, flavor="sklearn", name=name, holds=holds)


def log_data(training: Training, estimator: Any, data: Data) -> None:
    """Log what a fit is given, before the fit may overwrite it, unless MLflow does."""
    with guard.shield("sklearn.datasets"):
        if training.run is not None and not neighbours.logs_data(training.run, estimator):
            datasets.log(training, lambda: [Used(TRAIN, data.X, data.y)])


def log_settings(training: Training, estimator: Any) -> None:
    """Log what the estimator was told; after the fit, which may complete it."""
    if training.silent:
        return
    with guard.shield("sklearn.settings"):
        training.set_tags(estimators.tags(estimator))
        training.log_params(estimators.params(estimator))


def log_outcome(
    training: Training, estimator: Any, earlier: Mapping[str, int], data: Data, seconds: float
) -> None:
    """Log what a fit that succeeded, in so many seconds, has left behind.

    `earlier` are the lengths of its curves before, where it continues them.
    """
    if training.silent:
        return
    with guard.shield("sklearn.outcome"):
        _log_attributes(training, estimator, earlier)
    with guard.shield("sklearn.data"):
        training.set_tags(data.shapes())
    with guard.shield("sklearn.score"):
        scores.remember(training, estimator)
    with guard.shield("sklearn.search"):
        searches.log(training, estimator)
    if recorder.get().settings.log_models:
        with guard.shield("sklearn.model"):
            models.log(training, estimator, data)
    if recorder.get().settings.training_metrics:
        with guard.shield("sklearn.training_metrics"):
            training_metrics.log(training, estimator, data, seconds)


def _log_attributes(training: Training, estimator: Any, earlier: Mapping[str, int]) -> None:
    speaker, last = estimators.speaker(estimator), estimators.last_step(estimator)
    for iteration, values in enumerate(_added(estimators.curves(speaker), earlier)):
        training.log_metrics(values, training.first_epoch + iteration)
    findings = {**estimators.findings(speaker), **estimators.findings(last)}
    if findings:
        training.log_metrics(findings, training.first_epoch)


def _lengths_to_continue(estimator: Any) -> dict[str, int]:
    """Lengths of the curves that a fit with ``warm_start`` is going to continue."""
    speaker = estimators.speaker(estimator)
    is_refit = estimators.is_search(estimators.last_step(estimator))  # of a fresh clone
    if getattr(speaker, "warm_start", False) and not is_refit:
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
