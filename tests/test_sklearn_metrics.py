# ruff: noqa: N803 - predict(self, X) is how scikit-learn calls; fixtures are asked for by name
"""Option ``training_metrics``: the names and values of MLflow's autologging, in bounded time."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classifiers import X, Y, only
from logged import Logged, LoggedRun, logged_runs
from sklearn import metrics
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans, MeanShift
from sklearn.datasets import load_iris
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import autolog
from autolog.callbacks.sklearn.data import Data
from autolog.callbacks.sklearn.training_metrics import _affordable

WEIGHTS = np.linspace(0.5, 2, len(Y))
SIGNS = (X[:, :3] > 0).astype(int)
"""Three targets of two classes."""
IMAGES = {
    "training_confusion_matrix.png",
    "training_roc_curve.png",
    "training_precision_recall_curve.png",
}


@pytest.fixture
def logged(autolog_home: Path) -> Logged:
    """The runs so far, with autolog enabled and training metrics wanted."""
    autolog.enable(mode="offline", silent=True, training_metrics=True)
    return lambda: logged_runs(autolog_home)


def training_metrics(run: LoggedRun) -> dict[str, float]:
    """The training metrics of a run, which stand at step 0."""
    named = {k: v for k, v in run.metrics.items() if k.startswith("training_")}
    assert {step for values in named.values() for step, _ in values} <= {0}
    return {name: value for name, ((_, value),) in named.items()}


class Watched(ClassifierMixin, BaseEstimator):
    """Counts what it is asked, and disturbs what it can."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def fit(self, X: Any, y: Any) -> Watched:
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        self.asked.append("predict")
        warnings.warn("I was asked", UserWarning, stacklevel=1)
        return np.full(len(X), np.random.randint(2) and random.randint(0, 1))  # noqa: NPY002


class TestValues:
    def test_of_a_classifier(self, logged: Logged) -> None:
        """Weighted means over the classes, with the weights of the samples."""
        model = LogisticRegression(C=0.01).fit(X, Y, sample_weight=WEIGHTS)
        guess, chance = model.predict(X), model.predict_proba(X)
        given = {"sample_weight": WEIGHTS}
        assert training_metrics(only(logged())) == {
            f"training_{name}": pytest.approx(value)
            for name, value in {
                "precision_score": metrics.precision_score(Y, guess, average="weighted", **given),
                "recall_score": metrics.recall_score(Y, guess, average="weighted", **given),
                "f1_score": metrics.f1_score(Y, guess, average="weighted", **given),
                "accuracy_score": np.average(guess == Y, weights=WEIGHTS),
                "log_loss": -np.average(np.log(chance[range(len(Y)), Y]), weights=WEIGHTS),
                "roc_auc": metrics.roc_auc_score(Y, chance[:, 1], **given),
                "score": model.score(X, Y, WEIGHTS),
            }.items()
        }

    def test_of_a_regressor(self, logged: Logged) -> None:
        """Mean squared and absolute errors and r2, by hand."""
        model = Ridge().fit(X, Y)
        error = Y - model.predict(X)
        r2 = 1 - np.sum(error**2) / np.sum((Y - Y.mean()) ** 2)
        assert training_metrics(only(logged())) == {
            "training_mean_squared_error": pytest.approx(np.mean(error**2)),
            "training_root_mean_squared_error": pytest.approx(np.mean(error**2) ** 0.5),
            "training_mean_absolute_error": pytest.approx(np.mean(np.abs(error))),
            "training_r2_score": pytest.approx(r2),
            "training_score": pytest.approx(r2),
        }

    @pytest.mark.parametrize(
        ("model", "data"),
        [
            (LogisticRegression(C=0.1), (X, Y)),
            (make_pipeline(StandardScaler(), LogisticRegression()), load_iris(return_X_y=True)),
            (GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2), (X, Y)),
            (LinearSVC(), (X, Y.astype(str))),
            (LinearRegression(), (X, np.stack([Y, 1 - 2 * Y], axis=1))),
            (RandomForestClassifier(3), (X, SIGNS[:, :2])),
            (KNeighborsClassifier(), (X, SIGNS[:, :2])),
            (MultiOutputClassifier(LogisticRegression()), (X, SIGNS + SIGNS[:, [1, 2, 0]])),
            (OneVsRestClassifier(LogisticRegression()), (X, SIGNS)),
            (ClassifierChain(LogisticRegression()), (X, SIGNS)),
        ],
        ids=(
            "binary three-classes-in-a-pipeline search no-probabilities two-targets "
            "two-outputs neighbors outputs-of-three-classes labels chain"
        ).split(),
    )
    def test_they_are_mlflows(
        self, logged: Logged, monkeypatch: pytest.MonkeyPatch, model: Any, data: Any
    ) -> None:
        """Every name that MLflow's autologging computes is there, with its value."""
        from mlflow.sklearn import utils

        monkeypatch.setattr("autolog.callbacks.sklearn.training_metrics._LEAST_SECONDS", 60.0)
        model.fit(*data)
        of_kind = (
            utils._get_classifier_metrics(model, "training_", *data, None, None)
            if hasattr(model, "classes_")
            else utils._get_regressor_metrics(model, "training_", *data, None)
        )
        theirs = of_kind | {"training_score": model.score(*data)}
        assert training_metrics(only(logged())) == pytest.approx(theirs)

    @pytest.mark.parametrize(
        "model",
        [
            IsolationForest(n_estimators=3),
            make_pipeline(StandardScaler(), IsolationForest(n_estimators=3)),
            MeanShift(bandwidth=50.0),
        ],
        ids=["outliers", "outliers in a pipeline", "clusters"],
    )
    def test_without_a_score(self, logged: Logged, model: Any) -> None:
        """Nothing measures some estimators, though they were given targets."""
        model.fit(X, Y)
        run = only(logged())
        assert training_metrics(run) == {}
        assert set(run.files) == {"estimator.html"}

    def test_weights_that_the_score_does_not_take(self, logged: Logged) -> None:
        """The score is then that without weights, as MLflow's."""
        search = GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=2).fit(X, Y, sample_weight=WEIGHTS)
        assert training_metrics(only(logged()))["training_score"] == search.score(X, Y)

    def test_without_targets(self, logged: Logged) -> None:
        """A clustering has nothing to compare with: its HTML is all there is."""
        KMeans(2).fit(X)
        run = only(logged())
        assert training_metrics(run) == {}
        assert set(run.files) == {"estimator.html"}


class TestFiles:
    @pytest.mark.parametrize("model", [LogisticRegression(), LinearSVC()])
    def test_images_of_two_classes(self, logged: Logged, model: Any) -> None:
        """Confusion matrix, ROC and precision-recall curve, and the estimator as HTML."""
        model.fit(X, Y)
        files = only(logged()).files
        assert set(files) == {*IMAGES, "estimator.html"}
        assert all(files[name].startswith(b"\x89PNG") for name in IMAGES)
        assert type(model).__name__.encode() in files["estimator.html"]

    def test_curves_that_cannot_be_drawn(self, logged: Logged) -> None:
        """Where no curve comes of what a classifier says, the other files are there."""

        class Undecided(Watched):
            def decision_function(self, X: Any) -> Any:
                return np.full(len(X), np.nan)

        Undecided().fit(X, Y)
        expected = {"training_confusion_matrix.png", "estimator.html"}
        assert set(only(logged()).files) == expected

    def test_images_of_several_outputs(self, logged: Logged) -> None:
        """Images are for one target."""
        RandomForestClassifier(3).fit(X, SIGNS)
        assert set(only(logged()).files) == {"estimator.html"}

    def test_images_of_more_classes(self, logged: Logged) -> None:
        """Curves are for two classes; the confusion matrix is for any."""
        LogisticRegression(max_iter=300).fit(*load_iris(return_X_y=True))
        expected = {"training_confusion_matrix.png", "estimator.html"}
        assert set(only(logged()).files) == expected

    def test_pyplot_is_left_alone(self, logged: Logged) -> None:
        """No figure of the user's appears or goes, and no setting changes."""
        import matplotlib.pyplot as plt

        mine = plt.figure()
        before, backend = dict(plt.rcParams), plt.get_backend()
        LogisticRegression().fit(X, Y)
        assert set(only(logged()).files) >= IMAGES
        assert plt.get_fignums() == [mine.number]
        assert (dict(plt.rcParams), plt.get_backend()) == (before, backend)
        plt.close(mine)


class TestCost:
    def test_off_by_default(self, logged: Logged) -> None:
        """Without the option nothing is predicted, scored or drawn."""
        autolog.enable(training_metrics=False)
        model = Watched().fit(X, Y)
        assert model.asked == []
        assert only(logged()).files == {}

    def test_the_score_is_not_computed_twice(self, logged: Logged) -> None:
        """Where the estimator's score is the accuracy, one pass of predictions serves both."""
        model = Watched().fit(X[:100], Y[:100])
        assert model.asked == ["predict"]
        values = training_metrics(only(logged()))
        assert values["training_score"] == values["training_accuracy_score"]

    def test_nobody_notices(self, logged: Logged) -> None:
        """Random numbers and warnings of the program are those of one without the option."""
        np.random.seed(1)  # noqa: NPY002 - what estimators use by default
        random.seed(1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Watched().fit(X, Y)
        assert caught == []
        drawn = np.random.random(), random.random()  # noqa: NPY002
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)
        assert drawn == (np.random.random(), random.random())  # noqa: NPY002

    @pytest.mark.parametrize(
        ("a_row", "a_call"), [(1e-6, 0), (1e-4, 0), (1e-5, 0.05)], ids=["fast", "rows", "calls"]
    )
    def test_a_second_is_enough(self, a_row: float, a_call: float) -> None:
        """As many rows are predicted as three passes have time for, evenly spread."""
        now = 0.0

        class Slow:
            def predict(self, X: Any) -> Any:
                nonlocal now
                now += len(X) * a_row + a_call
                return X[:, 0]

        rows = np.arange(100_000)[:, None]
        part, labels = _affordable(Slow(), Data(rows, rows[:, 0]), 1.0, lambda: now)
        assert part.rows == len(labels)
        whole = now + 2 * (part.rows * a_row + a_call)
        assert whole <= 1.001
        assert whole > 0.5 or part.rows == len(rows)
        assert (part.X[0], part.X[-1]) == (0, 99_999)
        assert np.diff(part.y).max() - np.diff(part.y).min() <= 1

    def test_the_least_is_a_hundred_rows(self) -> None:
        """However slow predictions are, so many are made."""
        clock = iter([0.0, 1000.0])
        model = LinearRegression().fit(X, Y)
        part, _ = _affordable(model, Data(X, Y), 1.0, clock.__next__)
        assert part.rows == 100

    def test_a_sample_says_so(self, logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
        """A tag tells how many of the rows the metrics are of."""
        monkeypatch.setattr("autolog.callbacks.sklearn.training_metrics._LEAST_SECONDS", 0.0)

        class Slow(LogisticRegression):
            def predict(self, X: Any) -> Any:
                for _ in range(2000 if len(X) <= 100 else 1):
                    answer = super().predict(X)
                return answer

        model = Slow().fit(X, Y)
        run = only(logged())
        assert run.tags["autolog.training_metrics_rows"] == "100 of 200"
        chosen = np.linspace(0, 199, 100).astype(int)
        expected = metrics.accuracy_score(Y[chosen], model.predict(X)[chosen])
        assert training_metrics(run)["training_accuracy_score"] == pytest.approx(expected)
