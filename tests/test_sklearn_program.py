# ruff: noqa: N803 - fit(self, X, y) is how scikit-learn calls; fixtures are asked for by name

from __future__ import annotations

import gc
import inspect
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.base
from classifiers import Chatty, Voter, X, Y, only
from logged import LoggedRun, logged_runs
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import (
    GradientBoostingRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier

import autolog
from autolog.callbacks.sklearn import autologged, patches

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

Logged = Callable[[], list[LoggedRun]]


@pytest.fixture
def logged(autolog_home: Path) -> Logged:
    """The runs so far, with autolog enabled."""
    autolog.enable(mode="offline", silent=True)
    return lambda: logged_runs(autolog_home)


@pytest.fixture
def off(autolog_home: Path) -> Logged:
    """The runs so far, with autolog not enabled."""
    autolog.enable(mode="offline", silent=True)
    autolog.disable()
    return lambda: logged_runs(autolog_home)


class Failing(BaseEstimator):
    """Raises what it is given."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.loss_curve_ = [1.0]

    def fit(self, X: Any) -> Failing:
        raise self.error or AssertionError


class TestTheUsersProgram:
    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (ZeroDivisionError("mine"), "FAILED"),
            (KeyboardInterrupt(), "KILLED"),
            (SystemExit(3), "FAILED"),
        ],
        ids=["exception", "ctrl-c", "exit"],
    )
    def test_exception_passes_untouched(
        self, logged: Logged, error: BaseException, status: str
    ) -> None:
        """The very exception of the fit arrives, and the run says how it ended, with its params."""
        with pytest.raises(type(error)) as caught:
            Failing(error).fit(X)
        assert caught.value is error
        run = only(logged())
        assert (run.status, run.metrics) == (status, {})
        assert "error" in run.params
        Ridge().fit(X, Y)
        assert [run.status for run in logged()] == [status, "FINISHED"]

    def test_broken_hook_is_kept_from_the_user(
        self, logged: Logged, swallowed: list[tuple[str, Exception]]
    ) -> None:
        """Params that cannot be read cost the params, not the fit."""

        class Unreadable(BaseEstimator):
            def __init__(self, lost: int = 1) -> None:
                pass

            def fit(self, X: Any) -> Unreadable:
                return self

        model = Unreadable()
        assert model.fit(X) is model
        assert only(logged()).status == "FINISHED"
        assert [place for place, _ in swallowed] == ["sklearn.settings"]
        swallowed.clear()

    def test_training_is_bit_for_bit_the_same(self, off: Logged) -> None:
        """Pickles, random state, warnings and params are equal with hooks on and off."""

        def train() -> list[object]:
            np.random.seed(7)  # noqa: NPY002 - the state that estimators use by default
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model = MLPClassifier((3,), max_iter=3).fit(X, Y)
                search = GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=2).fit(X, Y)
            search.cv_results_ = {k: v for k, v in search.cv_results_.items() if "time" not in k}
            search.refit_time_ = 0
            said = [(str(w.message), w.category, w.filename, w.lineno) for w in caught]
            state = np.random.random()  # noqa: NPY002
            return [pickle.dumps(model), pickle.dumps(search), said, state, model.get_params()]

        without = train()
        autolog.enable()
        assert train() == without
        assert len(off()) == 2 + 2, "two trainings, and the two candidates of the search"

    def test_classes_look_the_same(self, off: Logged) -> None:
        """Signatures, kinds of functions and metadata requests are those of the original."""

        def look() -> list[object]:
            classes = [LogisticRegression, MLPClassifier, Voter, Chatty]
            return [
                (
                    inspect.signature(cls.fit),
                    inspect.isfunction(cls.fit),
                    cls.fit.__qualname__,
                    cls.fit.__module__,
                    cls.fit.__doc__,
                    str(cls().get_metadata_routing()),
                )
                for cls in classes
            ]

        without = look()
        autolog.enable()
        assert look() == without

    def test_estimators_stay_what_they_are(self, logged: Logged) -> None:
        """A fitted estimator clones and pickles without a trace of us."""
        model = LogisticRegression(C=3).fit(X, Y)
        assert b"autolog" not in pickle.dumps(model)
        again = pickle.loads(pickle.dumps(model))
        assert np.array_equal(again.predict(X), model.predict(X))
        assert clone(model).get_params() == model.get_params()


class TestOnAndOff:
    def test_everything_is_put_back(self, off: Logged) -> None:
        """After disable each attribute of each class is the very object it was."""
        before = _methods()
        autolog.enable()
        autolog.enable()
        changed = [key for key, method in _methods().items() if method is not before[key]]
        autolog.disable()
        assert len(changed) > 50
        assert _methods() == before
        assert "__init_subclass__" not in vars(BaseEstimator)

    def test_classes_defined_later(self, logged: Logged) -> None:
        """A class made after enable() is logged, also where an earlier one has been collected."""
        for number in range(6):

            class Late(BaseEstimator):
                def __init__(self, number: int = 0) -> None:
                    self.number = number

                def fit(self, X: Any) -> BaseEstimator:
                    return self

            Late(number).fit(X)
            del Late
            gc.collect()
        assert [run.params["number"] for run in logged()] == [str(n) for n in range(6)]

    def test_wrapped_by_somebody_else(self, logged: Logged, monkeypatch: Any) -> None:
        """Where another library has wrapped our wrapper, disable leaves theirs and logs nothing."""
        ours = Ridge.fit

        def theirs(self: Ridge, *args: Any) -> Ridge:
            return ours(self, *args)

        monkeypatch.setattr(Ridge, "fit", theirs)
        autolog.disable()
        assert Ridge.fit is theirs
        Ridge().fit(X, Y)
        assert logged() == []


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

    def test_refuses_what_cannot_be_fitted(self) -> None:
        """An object without fit is a TypeError that says so."""
        with pytest.raises(TypeError, match="no fit"):
            autologged(object())


def _methods() -> dict[tuple[type, str], object]:
    """Every training method of every estimator class that is loaded."""
    return {
        (cls, name): vars(owner).get(attribute)
        for cls in patches.lineage_of_family(sklearn.base.BaseEstimator)
        for name, owner, attribute in patches.methods(cls)
    }
