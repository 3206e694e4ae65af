# ruff: noqa: N803 - fit(self, X, y) is how scikit-learn calls; fixtures are asked for by name
"""The explicit forms: ``autologged``, and the callback of scikit-learn's own API."""

from __future__ import annotations

import gc
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from classifiers import Chatty, X, Y, only
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV

import autolog
from autolog.callbacks.sklearn import AutologCallback, autologged

if TYPE_CHECKING:
    from logged import Logged

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class TestAutologged:
    def test_works_without_enable(self, off: Logged) -> None:
        """The marked estimator logs its fit; it is the same object."""
        model = GradientBoostingRegressor(n_estimators=2)
        assert autologged(model) is model
        assert model.fit(X, Y) is model
        assert only(off()).values("epoch_loss") == list(model.train_score_)

    def test_marks_this_object_alone(self, off: Logged) -> None:
        """Other estimators of the class, clones and pickles are not logged."""
        model = autologged(Ridge())
        for other in (Ridge(), clone(model), pickle.loads(pickle.dumps(model))):
            other.fit(X, Y)
        assert off() == []
        assert b"autolog" not in pickle.dumps(model)

    def test_finds_inherited_methods(self, off: Logged) -> None:
        """A class that inherits its fit is logged, once, with its own name."""

        class Named(Chatty):
            pass

        autologged(Named()).fit(X, Y)
        assert only(off()).model == "Named"

    def test_counts_once_beside_enable(self, logged: Logged) -> None:
        """Marked and enabled is one run."""
        autologged(GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=2)).fit(X, Y)
        assert only(logged()).model == "GridSearchCV"

    def test_goes_on_after_disable(self, off: Logged) -> None:
        """Marks outlive disable(), with their loops; every other class is put back."""
        before = vars(Ridge)["fit"], vars(LogisticRegression)["fit"]
        autolog.enable()
        model, loop = autologged(Ridge()), autologged(SGDClassifier())
        loop.partial_fit(X, Y, classes=[0, 1])
        autolog.disable()
        assert vars(LogisticRegression)["fit"] is before[1]
        Ridge().fit(X, Y)
        model.fit(X, Y).score(X, Y)
        loop.partial_fit(X, Y)
        first, second = off()
        assert (first.model, len(first.metrics["samples_seen"])) == ("SGDClassifier", 2)
        assert (second.model, len(second.metrics["score"])) == ("Ridge", 1)
        del model, loop
        gc.collect()
        autolog.enable()
        autolog.disable()
        assert vars(Ridge)["fit"] is before[0]

    def test_of_no_base(self, off: Logged) -> None:
        """An estimator that does not derive from BaseEstimator is logged, and put back."""

        class Duck:
            def fit(self, X: Any, y: Any) -> Duck:
                return self

            def predict(self, X: Any) -> Any:
                return X[:, 0]

            def score(self, X: Any, y: Any) -> float:
                return 0.25

        before = dict(vars(Duck))
        autolog.enable(training_metrics=True)
        model = autologged(Duck()).fit(X, Y)
        assert only(off()).metrics == {"training_score": [(0, 0.25)]}
        del model
        gc.collect()
        autolog.disable()
        assert {name: vars(Duck)[name] for name in before} == before

    def test_refuses_what_cannot_be_fitted(self) -> None:
        """An object without fit is a TypeError that says so."""
        with pytest.raises(TypeError, match="no fit"):
            autologged(object())


@pytest.mark.skipif(not hasattr(LogisticRegression, "set_callbacks"), reason="scikit-learn < 1.9")
class TestCallback:
    def test_loss_while_the_fit_goes_on(self, off: Logged) -> None:
        """After each iteration the scorer's value, and its negative as epoch_loss."""
        model = LogisticRegression(max_iter=4).set_callbacks(AutologCallback("neg_log_loss"))
        model.fit(X, Y)
        run = only(off())
        assert [step for step, _ in run.metrics["epoch_loss"]] == [0, 1, 2, 3]
        assert run.values("epoch_loss")[-1] == log_loss(Y, model.predict_proba(X))
        assert run.values("neg_log_loss") == [-value for value in run.values("epoch_loss")]
        assert run.metrics["n_iter"] == [(0, 4)]
        assert (run.params["max_iter"], run.status) == ("4", "FINISHED")
        assert run.tags["autolog.data_shapes"] == "X (200, 30), y (200,)"

    def test_beside_enable_it_only_adds(self, logged: Logged) -> None:
        """One run, each value once, with the losses of the callback."""
        model = LogisticRegression(max_iter=3).set_callbacks(AutologCallback("neg_log_loss"))
        model.fit(X, Y)
        run = only(logged())
        assert [len(values) for values in run.metrics.values()] == [3, 3, 1]

    @pytest.mark.parametrize("scoring", ["nonsense", "", ["accuracy"]])
    def test_a_scorer_that_is_none(self, scoring: Any) -> None:
        """It is a ValueError at once, with the value and the names to choose from."""
        with pytest.raises(ValueError, match="neg_log_loss") as caught:
            AutologCallback(scoring)
        assert repr(scoring) in str(caught.value)

    def test_on_a_search(self, off: Logged) -> None:
        """A search has one run with its table; nothing is predicted without scoring."""
        GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=2).set_callbacks(AutologCallback()).fit(X, Y)
        assert "cv_results.csv" in only(off()).files
        assert only(off()).status == "FINISHED"

    def test_inside_a_search(self, off: Logged) -> None:
        """The candidates of a search are no trainings of the user's."""
        model = LogisticRegression().set_callbacks(AutologCallback("accuracy"))
        GridSearchCV(model, {"C": [0.1, 1]}, cv=2).fit(X, Y)
        assert off() == []

    def test_a_fit_that_fails(self, off: Logged) -> None:
        """The user's exception passes and the run ends FAILED, also where one was handled."""
        model = LogisticRegression().set_callbacks(AutologCallback())
        try:
            int("no number")
        except ValueError:
            model.fit(X, Y)
        with pytest.raises(ValueError, match="one class|1 class|classes"):
            model.fit(X, np.zeros(len(X)))
        assert [run.status for run in off()] == ["FINISHED", "FAILED"]

    def test_travels_with_its_estimator(self, off: Logged) -> None:
        """It pickles and clones, also while a fit goes on."""
        callback = AutologCallback("accuracy")
        model = clone(LogisticRegression(max_iter=2).set_callbacks(callback))
        again = pickle.loads(pickle.dumps(model)).fit(X, Y)
        assert again.score(X, Y) == only(off()).values("accuracy")[-1]
