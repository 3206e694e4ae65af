"""How the user scores what was fitted: the values go into the run of the fit.

Either an estimator's own ``score``, or a metric of scikit-learn on what the estimator predicted.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any

from autolog import guard, recorder
from autolog.callbacks.sklearn import estimators, neighbours

if TYPE_CHECKING:
    from autolog.recorder import Training


class Fitted:
    """The newest training of an estimator, and what was scored since."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self._counts: Counter[str] = Counter()

    def log(self, name: str, value: object) -> None:
        """Log one of the user's values, if it is a number, at the next step of its name."""
        if isinstance(value, Real) and not recorder.get().are_hooks_mute:
            self.training.log_metrics({name: value}, self._counts[name])
            self._counts[name] += 1


_fitted: dict[int, Fitted] = {}
"""By the id of an estimator that is alive: its finalizer removes it."""

_predictions: dict[int, tuple[weakref.ref[Any], Fitted]] = {}
"""By the id of an array that is alive."""


def remember(training: Training, estimator: Any) -> None:
    """Later scores of the estimator, or of the one that a search refitted, belong to a training."""
    fitted = Fitted(training)
    for subject in {id(e): e for e in (estimator, estimators.winner(estimator))}.values():
        if id(subject) not in _fitted:
            weakref.finalize(subject, _fitted.pop, id(subject), None).atexit = False
        _fitted[id(subject)] = fitted


def score(method: Callable[..., Any], estimator: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Score, and log the value if a training of the estimator was logged."""
    result = method(estimator, *args, **kwargs)
    with guard.shield("sklearn.score"):
        fitted = _fitted.get(id(estimator))
        run = fitted.training.run if fitted else None
        if fitted and run and not neighbours.logs_score(run, estimator):
            fitted.log("score", result)
    return result


def predict(method: Callable[..., Any], estimator: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Predict, and remember whose the prediction is."""
    result = method(estimator, *args, **kwargs)
    fitted = _fitted.get(id(estimator))
    if fitted is not None:
        with guard.shield("sklearn.predict"):
            _note(result, fitted)
            root = _root(result)
            # A part of a view is a view of the root. The root may be what was given, too.
            if root is not result and all(root is not _root(given) for given in args):
                _note(root, fitted)
    return result


def _note(prediction: Any, fitted: Fitted) -> None:
    """Remember whose a prediction is, while it lives; a list is not remembered."""
    number = id(prediction)
    with contextlib.suppress(TypeError):
        alive = weakref.ref(prediction, lambda _: _predictions.pop(number, None))
        _predictions[number] = alive, fitted


def _root(value: Any) -> Any:
    """The array that an array is a view of, else itself."""
    while (base := getattr(value, "base", None)) is not None:
        value = base
    return value


def predictor(*values: Any) -> Fitted | None:
    """Who predicted one of the values, or what one of them is a part of."""
    if not _predictions:
        return None
    for value in values:
        while value is not None:
            prediction, fitted = _predictions.get(id(value), (None, None))
            if prediction is not None and prediction() is value:
                return fitted
            value = getattr(value, "base", None)  # noqa: PLW2901 - what an array is a view of
    return None
