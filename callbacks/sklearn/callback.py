# ruff: noqa: N803, ARG002 - scikit-learn's names; it passes them by name
"""The callback for scikit-learn's own callback API, which 1.9 began with."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from autolog import guard
from autolog.callbacks.sklearn import trainings
from autolog.callbacks.sklearn.data import Data
from autolog.recorder.training import EPOCH_LOSS, status_of

if TYPE_CHECKING:
    from autolog.recorder import Training


class AutologCallback:
    """Logs the fits of the estimator it is set on, with or without ``autolog.enable()``.

    ``LogisticRegression().set_callbacks(AutologCallback(scoring="neg_log_loss"))``

    The log is that of any other form. With `scoring` there is also a value while the fit goes on:
    after each iteration that the estimator reports, the scorer of that name is called with the
    training data, and what it returns is logged under its name, step = iteration from 0. The
    negative of a ``neg_`` scorer is ``epoch_loss``. That takes a prediction for each iteration.

    Inside another estimator that scikit-learn fits it does nothing. It may be set on several
    estimators, and pickles and clones with them.

    Raises `ValueError` if scikit-learn has no scorer of that name.
    """

    def __init__(self, scoring: str | None = None) -> None:
        if scoring is not None:
            _check(scoring)
        self.scoring = scoring
        self._fits: dict[int, _Fit] = {}
        # scikit-learn makes the fitted estimator of an iteration only if the hook asks for it.
        self.on_fit_task_end = self._pass if scoring is None else self._score

    def __reduce__(self) -> Any:
        """A copy, as in a worker process, knows of no fit."""
        return type(self), (self.scoring,)

    def setup(self, estimator: Any, context: Any) -> None:
        """A fit begins."""
        with guard.shield("sklearn.callback"):
            if context.parent is None:
                self._fits[id(estimator)] = _Fit(estimator)

    def on_fit_task_begin(
        self, estimator: Any, context: Any, *, X: Any = None, y: Any = None
    ) -> None:
        """The fit, or an iteration of it, begins."""
        fit = self._fits.get(id(estimator))
        if fit is not None and context.parent is None:
            fit.begin(estimator, Data(X, y))

    def teardown(self, estimator: Any, context: Any) -> None:
        """The fit is over, or has failed."""
        fit = self._fits.pop(id(estimator), None)
        if fit is not None:
            fit.end(estimator)

    def _pass(self, estimator: Any, context: Any) -> None:
        pass

    def _score(
        self,
        estimator: Any,
        context: Any,
        *,
        X: Any = None,
        y: Any = None,
        fitted_estimator: Any = None,
    ) -> None:
        fit = self._fits.get(id(estimator))
        if fit is None or context.parent is None or fitted_estimator is None:
            return
        with guard.shield("sklearn.callback"):
            fit.log_score(str(self.scoring), fitted_estimator, X, y)


def _check(scoring: str) -> None:
    from sklearn.metrics import get_scorer_names

    names = get_scorer_names()
    if scoring not in names:
        raise ValueError(
            f"AutologCallback(scoring={scoring!r}): scikit-learn has no scorer of that name; "
            f"choose one of {', '.join(names)}"
        )


class _Fit:
    """A fit that goes on: logged by us, or by the hook round it, to which we only add."""

    def __init__(self, estimator: Any) -> None:
        hooked = trainings.of(estimator)
        self.is_ours = hooked is None
        self.training: Training = hooked or trainings.begin(estimator)
        self.data = Data()
        self._iterations = 0
        self._started = time.perf_counter()
        self._error_before = sys.exc_info()[1]

    def begin(self, estimator: Any, data: Data) -> None:
        """Take note of what it is given."""
        self.data = data
        if self.is_ours:
            trainings.log_data(self.training, estimator, data)

    def log_score(self, scoring: str, fitted: Any, X: Any, y: Any) -> None:
        """Log how well an iteration has learnt its training data."""
        from sklearn.metrics import get_scorer

        if self.training.silent:
            return
        value = float(get_scorer(scoring)(fitted, X, y))
        values = {scoring: value}
        if scoring.startswith("neg_"):
            values[EPOCH_LOSS] = -value
        self.training.log_metrics(values, self.training.first_epoch + self._iterations)
        self._iterations += 1

    def end(self, estimator: Any) -> None:
        """Log what has come of it."""
        if not self.is_ours:
            return
        error = sys.exc_info()[1]
        if error is self._error_before:  # the fit was called where one was handled
            error = None
        trainings.log_settings(self.training, estimator)
        if error is None:
            seconds = time.perf_counter() - self._started
            trainings.log_outcome(self.training, estimator, {}, self.data, seconds)
        self.training.end(status_of(error))
