"""Loops over ``partial_fit``: a run for each estimator, a step for each call."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

from autolog import guard
from autolog.callbacks.sklearn import estimators, scores, trainings
from autolog.callbacks.sklearn.data import Data
from autolog.recorder.training import status_of
from autolog.records import Status

if TYPE_CHECKING:
    from autolog.recorder import Training


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


def train_step(method: Callable[..., Any], estimator: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Fit once more, and log it as a step; a transformer on its own is fitted only."""
    loop, curve_before = None, 0
    with guard.shield("sklearn.partial_fit"):
        if not estimators.is_transformer(estimator):
            loop, curve_before = _loop_of(estimator), len(estimators.losses(estimator))
    try:
        result = method(estimator, *args, **kwargs)
    except BaseException as error:
        end(id(estimator), status_of(error))
        raise
    if loop is not None and not loop.training.silent:
        with guard.shield("sklearn.partial_fit"):
            _log_step(loop, estimator, curve_before, Data(args[0] if args else kwargs.get("X")))
    return result


def end(number: int, status: str = Status.FINISHED) -> None:
    """End the loop of the estimator with that id, if it is in one."""
    loop = _loops.pop(number, None)
    if loop is not None:
        loop.training.end(status)


def end_all(*, but: Container[int]) -> None:
    """End every loop that no further call will reach: all but those of these estimators."""
    for number in [number for number in _loops if number not in but]:
        end(number)


def _loop_of(estimator: Any) -> _Loop:
    loop = _loops.get(id(estimator))
    if loop is None or loop.is_over:
        loop = _Loop(trainings.begin(estimator, holds=False))
        if not loop.training.silent:
            _loops[id(estimator)] = loop
            weakref.finalize(estimator, end, id(estimator)).atexit = False
    return loop


def _log_step(loop: _Loop, estimator: Any, curve_before: int, data: Data) -> None:
    if loop.calls == 0:
        trainings.log_settings(loop.training, estimator)
        scores.remember(loop.training, estimator)
    loop.samples += data.rows
    values: dict[str, float] = {"samples_seen": loop.samples}
    losses = estimators.losses(estimator)
    if len(losses) > curve_before:
        values["epoch_loss"] = losses[-1]
    loop.training.log_metrics(values, loop.training.first_epoch + loop.calls)
    loop.calls += 1
