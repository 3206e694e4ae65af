# ruff: noqa: N803 - fit(self, X, y) is how scikit-learn calls
"""What the tests of scikit-learn train: estimators of a user's own, and small data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    from logged import LoggedRun

X, Y = load_breast_cancer(return_X_y=True)
X = StandardScaler().fit_transform(X)[:200]
Y = Y[:200]


def only(runs: list[LoggedRun]) -> LoggedRun:
    """The one run that there must be, not counting its child runs."""
    (run,) = (run for run in runs if run.start.parent_key is None)
    return run


class Voter(ClassifierMixin, BaseEstimator):
    """A user's estimator, whose fit calls other fits, in threads too."""

    def __init__(self, n_jobs: int = 1) -> None:
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any) -> Voter:
        fit = joblib.delayed(lambda c: LogisticRegression(C=c).fit(X, y))
        self.models_ = joblib.Parallel(self.n_jobs, backend="threading")(map(fit, (0.1, 1.0)))
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        return self.models_[0].predict(X)


class Chatty(LogisticRegression):
    """A user's subclass that calls the original."""

    def fit(self, X: Any, y: Any) -> Chatty:
        super().fit(X, y)
        return self
