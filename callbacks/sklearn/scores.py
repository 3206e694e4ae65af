"""The user's own calls of ``score``: their values go into the run of the estimator's fit."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any

from autolog import guard, recorder
from autolog.callbacks.sklearn import estimators

if TYPE_CHECKING:
    from autolog.recorder import Training


class _Fitted:
    """The newest training of an estimator, and how often that was scored."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.scores = 0


_fitted: dict[int, _Fitted] = {}
"""By the id of an estimator that is alive: its finalizer removes it."""


def remember(training: Training, estimator: Any) -> None:
    """Later scores of the estimator, or of the one that a search refitted, belong to a training."""
    fitted = _Fitted(training)
    for subject in {id(e): e for e in (estimator, estimators.winner(estimator))}.values():
        if id(subject) not in _fitted:
            weakref.finalize(subject, _fitted.pop, id(subject), None).atexit = False
        _fitted[id(subject)] = fitted


def score(
    method: Callable[..., Any], estimator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Score, and log the value if a training of the estimator was logged."""
    result = method(estimator, *args, **kwargs)
    with guard.shield("sklearn.score"):
        fitted = _fitted.get(id(estimator))
        if fitted and isinstance(result, Real) and not recorder.get().are_hooks_mute:
            fitted.training.log_late_metrics({"score": result}, fitted.scores)
            fitted.scores += 1
    return result
