# ruff: noqa: N803 - fit(self, X, y) is how scikit-learn calls; fixtures are asked for by name

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from classifiers import Chatty, Voter, X, Y, only
from logged import Logged, logged_runs
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.metrics import log_loss
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelBinarizer, LabelEncoder, StandardScaler
from support import run_script

import autolog

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class TestWhatIsLogged:
    def test_loss_curve_of_a_perceptron_in_a_pipeline(self, logged: Logged) -> None:
        """epoch_loss is the last step's loss curve, and params are those of every step."""
        model = make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=5, alpha=0.25))
        assert model.fit(X, Y) is model
        run = only(logged())
        assert run.metrics["epoch_loss"] == list(enumerate(model[-1].loss_curve_))
        assert run.metrics["n_iter"] == [(0, 5)]
        assert run.params["mlpclassifier__alpha"] == "0.25"
        assert run.params["standardscaler__with_mean"] == "True"
        assert (run.model, run.status) == ("Pipeline", "FINISHED")
        assert run.tags["mlflow.autologging"] == "sklearn"
        assert run.tags["estimator_name"] == "Pipeline"
        assert run.tags["estimator_class"] == "sklearn.pipeline.Pipeline"

    def test_gradient_boosting_against_its_staged_predictions(self, logged: Logged) -> None:
        """epoch_loss at step i is the mean squared error after i + 1 trees, by hand."""
        model = GradientBoostingRegressor(n_estimators=6).fit(X, Y)
        by_hand = [float(np.mean((Y - guess) ** 2)) for guess in model.staged_predict(X)]
        run = only(logged())
        assert [step for step, _ in run.metrics["epoch_loss"]] == list(range(6))
        assert run.values("epoch_loss") == pytest.approx(by_hand, abs=1e-6)

    def test_histogram_boosting_against_its_staged_predictions(self, logged: Logged) -> None:
        """epoch_loss is a positive loss, without the value from before the first tree."""
        model = HistGradientBoostingClassifier(
            max_iter=6, early_stopping=True, validation_fraction=None
        ).fit(X, Y)
        by_hand = [log_loss(Y, p) for p in model.staged_predict_proba(X)]
        run = only(logged())
        assert [step for step, _ in run.metrics["epoch_loss"]] == list(range(6))
        assert run.values("epoch_loss") == pytest.approx(by_hand, abs=1e-6)

    def test_deviance_against_the_log_loss(self, logged: Logged) -> None:
        """A boosted classifier's loss is twice the log loss, as scikit-learn defines deviance."""
        model = GradientBoostingClassifier(n_estimators=5).fit(X, Y)
        by_hand = [2 * log_loss(Y, p) for p in model.staged_predict_proba(X)]
        assert only(logged()).values("epoch_loss") == pytest.approx(by_hand, abs=1e-6)

    def test_bounds_of_a_mixture(self, logged: Logged) -> None:
        """The likelihood's lower bound by iteration, under its attribute's name."""
        model = GaussianMixture(2, random_state=0).fit(X)
        run = only(logged())
        bounds = getattr(model, "lower_bounds_", [])  # scikit-learn 1.7
        assert run.metrics.get("lower_bounds", []) == list(enumerate(bounds))
        assert run.values("lower_bound") == [model.lower_bound_]

    def test_shapes_of_the_data(self, logged: Logged) -> None:
        """A tag says how many samples and features there were, however they were passed."""
        LogisticRegression().fit(y=Y, X=X)
        assert only(logged()).tags["autolog.data_shapes"] == "X (200, 30), y (200,)"

    def test_a_score_is_no_loss(self, logged: Logged) -> None:
        """A curve that holds accuracies does not become epoch_loss."""
        model = HistGradientBoostingClassifier(max_iter=4, early_stopping=True, scoring="accuracy")
        model.fit(X, Y)
        run = only(logged())
        assert "epoch_loss" not in run.metrics
        assert run.values("validation_score") == list(model.validation_score_[1:])

    def test_nothing_is_invented_without_a_curve(self, logged: Logged) -> None:
        """An estimator that keeps no losses has its number of iterations and no epoch_loss."""
        model = LogisticRegression(C=0.5).fit(X, Y)
        run = only(logged())
        assert run.metrics == {"n_iter": [(0, model.n_iter_[0])]}
        assert run.params["C"] == "0.5"

    def test_warm_start_logs_what_the_fit_added(self, logged: Logged) -> None:
        """The second fit's run holds the second half of the curve, from step 0."""
        model = MLPClassifier((3,), max_iter=4, warm_start=True).fit(X, Y)
        model.fit(X, Y)
        first, second = logged()
        assert len(model.loss_curve_) == 8
        assert first.values("epoch_loss") == model.loss_curve_[:4]
        assert second.metrics["epoch_loss"] == list(enumerate(model.loss_curve_[4:]))

    def test_search_has_its_own_params_and_the_winner(self, logged: Logged) -> None:
        """A search logs its settings, best_<param>, and the best score as best_cv_score."""
        search = GridSearchCV(LogisticRegression(), {"C": [0.01, 1.0]}, cv=2).fit(X, Y)
        run = only(logged())
        assert run.params["cv"] == "2"
        assert run.params["best_C"] == str(search.best_params_["C"])
        assert not any("estimator__" in name for name in run.params)
        assert run.metrics["best_cv_score"] == [(0, search.best_score_)]

    def test_params_are_those_after_the_fit(self, logged: Logged) -> None:
        """What a fit changes in the params is what is logged."""

        class Choosing(BaseEstimator):
            def __init__(self, k: int | None = None) -> None:
                self.k = k

            def fit(self, X: Any) -> Choosing:
                self.k = len(X)
                return self

        Choosing().fit(X)
        assert only(logged()).params["k"] == "200"


class TestOneRunATraining:
    @pytest.mark.parametrize(
        "train",
        [
            lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y),
            lambda: make_pipeline(StandardScaler(), KMeans(2)).fit_predict(X),
            lambda: GridSearchCV(Voter(), {"n_jobs": [1, 2]}, cv=2).fit(X, Y),
            lambda: RandomForestClassifier(4, n_jobs=2).fit(X, Y),
            lambda: VotingClassifier([("a", LogisticRegression()), ("b", Voter())]).fit(X, Y),
            lambda: StackingClassifier([("a", LogisticRegression()), ("b", Voter())]).fit(X, Y),
            lambda: BaggingClassifier(LogisticRegression(), 3, n_jobs=2).fit(X, Y),
            lambda: Voter(n_jobs=2).fit(X, Y),
            lambda: Chatty().fit(X, Y),
            lambda: KMeans(2).fit_predict(X),
        ],
        ids=(
            "pipeline pipeline-fit_predict search forest voting stacking bagging "
            "user-class-with-threads user-subclass fit_predict"
        ).split(),
    )
    def test_outermost_fit_alone(self, logged: Logged, train: Callable[[], object]) -> None:
        """Whatever is fitted inside a fit, one run comes of it."""
        train()
        assert only(logged()).status == "FINISHED"

    def test_search_in_threads(self, logged: Logged) -> None:
        """The candidates that joblib fits in other threads belong to the search."""
        with joblib.parallel_config("threading", n_jobs=2):
            GridSearchCV(Voter(), {"n_jobs": [1, 2]}, cv=2).fit(X, Y)
        assert only(logged()).model == "GridSearchCV"

    def test_search_in_worker_processes_with_a_class_of_main(
        self, tmp_path: Path, autolog_home: Path
    ) -> None:
        """A class of the script itself, patched as it is, travels to loky's workers and back."""
        done = run_script(
            """
            import autolog
            autolog.enable()
            from sklearn.base import BaseEstimator, ClassifierMixin
            from sklearn.datasets import load_breast_cancer
            from sklearn.ensemble import StackingClassifier
            from sklearn.linear_model import LogisticRegression
            from sklearn.model_selection import GridSearchCV, cross_validate

            class Mine(ClassifierMixin, BaseEstimator):
                def __init__(self, c=1.0):
                    self.c = c
                def fit(self, X, y):
                    self.model_ = LogisticRegression(C=self.c, max_iter=50).fit(X, y)
                    self.classes_ = self.model_.classes_
                    return self
                def predict(self, X):
                    return self.model_.predict(X)

            X, y = load_breast_cancer(return_X_y=True)
            search = GridSearchCV(Mine(), {"c": [0.1, 1.0]}, cv=2, n_jobs=2).fit(X, y)
            assert 0.8 < search.best_score_ <= 1
            scores = cross_validate(Mine(), X, y, cv=3, n_jobs=2)["test_score"]
            assert search.score(X, y) > 0.8
            StackingClassifier([("mine", Mine()), ("again", Mine(0.1))], n_jobs=2).fit(X, y)
            print(list(map(float, scores)))
            """,
            cwd=tmp_path,
            env={"AUTOLOG_MODE": "offline", "PYTHONWARNINGS": "ignore"},
            timeout=150,
        )
        assert done.returncode == 0, done.stderr
        search, validation, stacking = (
            run for run in logged_runs(autolog_home) if run.start.parent_key is None
        )
        assert (search.model, validation.model) == ("GridSearchCV", "Mine")
        assert stacking.model == "StackingClassifier"
        assert len(search.values("score")) == 1
        assert validation.values("test_score") == json.loads(done.stdout)

    @pytest.mark.parametrize(
        "prepare",
        [
            lambda: StandardScaler().fit_transform(X),
            lambda: PCA(2).fit(X),
            lambda: make_pipeline(StandardScaler(), PCA(2)).fit_transform(X),
            lambda: SelectFromModel(LogisticRegression()).fit(X, Y),
            lambda: LabelEncoder().fit(Y),
            lambda: LabelBinarizer().fit_transform(Y),
        ],
        ids="scaler pca pipeline selection labels binarizer".split(),
    )
    def test_transformers_are_no_trainings(
        self, logged: Logged, prepare: Callable[[], object]
    ) -> None:
        """Preparing data on its own opens no run."""
        prepare()
        assert logged() == []

    def test_folds_are_one_training(self, logged: Logged) -> None:
        """The fits of cross_val_score open no run each, nor do the fits inside them."""
        cross_val_score(Voter(), X, Y, cv=2)
        assert only(logged()).model == "Voter"

    def test_threads_after_folds(self, logged: Logged) -> None:
        """Folds inside a fit come to their end, and its threads still belong to it."""

        class Validating(Voter):
            def fit(self, X: Any, y: Any) -> Voter:
                cross_val_score(LogisticRegression(), X, y, cv=2)
                return super().fit(X, y)

        Validating(n_jobs=2).fit(X, Y)
        assert only(logged()).model == "Validating"

    def test_folds_inside_a_transformer(self, logged: Logged) -> None:
        """What a transformer validates for itself is no training either."""

        class Validating(StandardScaler):
            def fit(self, X: Any, y: Any) -> Validating:
                cross_val_score(LogisticRegression(), X, y, cv=2)
                return self

        Validating().fit(X, Y)
        assert logged() == []

    @pytest.mark.parametrize("pooled", [False, True], ids=["threads", "pool"])
    def test_trainings_of_several_threads(self, logged: Logged, pooled: bool) -> None:
        """Three fits at once in three threads are three runs, each whole."""
        together = threading.Barrier(3)

        class Waiting(Ridge):
            def fit(self, X: Any, y: Any) -> Waiting:
                together.wait(20)
                super().fit(X, y)
                return self

        if pooled:
            with ThreadPool(3) as pool:
                pool.map(lambda alpha: Waiting(alpha=alpha).fit(X, Y), [1, 2, 3])
        else:
            threads = [
                threading.Thread(target=Waiting(alpha=a).fit, args=(X, Y)) for a in (1, 2, 3)
            ]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
        assert sorted(run.params["alpha"] for run in logged()) == ["1", "2", "3"]
        assert {run.status for run in logged()} == {"FINISHED"}

    def test_pause(self, logged: Logged) -> None:
        """What trains while autolog is paused is not logged."""
        with autolog.pause():
            LogisticRegression().fit(X, Y)
        assert logged() == []

    def test_trainings_in_an_adopted_run(
        self, logged: Logged, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first of ten uses the platform's run, which stays open; each other is a child run."""
        monkeypatch.setenv("AZUREML_RUN_ID", "of-the-platform")
        models = [Ridge(alpha=number) for number in range(1, 11)]
        for model in models:
            model.fit(X, Y)
        adopted, *others = logged()
        assert (adopted.start.run_id, adopted.status) == ("of-the-platform", None)
        assert {run.start.parent_key for run in others} == {adopted.start.key}
        assert {run.status for run in others} == {"FINISHED"}
        assert [run.params["alpha"] for run in (adopted, *others)] == [
            str(number) for number in range(1, 11)
        ]

    def test_fits_of_one_object(self, logged: Logged) -> None:
        """Outside of any run five fits are five runs, whose epochs begin at 0."""
        model = GradientBoostingRegressor(n_estimators=2, random_state=0)
        for _ in range(5):
            model.fit(X, Y)
        assert [run.metrics["epoch_loss"] for run in logged()] == [
            list(enumerate(model.train_score_))
        ] * 5

    def test_fits_of_one_object_in_the_users_run(self, logged: Logged) -> None:
        """In a run of the user's the second fit goes on where the first one's epochs ended."""
        model = GradientBoostingRegressor(n_estimators=3, random_state=0)
        with autolog.run("mine"):
            model.fit(X, Y)
            model.fit(X, Y)
        run = only(logged())
        assert run.metrics["epoch_loss"] == list(enumerate([*model.train_score_] * 2))


class TestPartialFit:
    def test_loop_is_one_run_with_a_step_a_call(self, logged: Logged) -> None:
        """Each call of partial_fit is a step; the run ends when the estimator is let go."""
        model = MLPClassifier((3,), learning_rate_init=0.5)
        for start in (0, 50, 100):
            model.partial_fit(X[start : start + 50], Y[start : start + 50], classes=[0, 1])
        curve = list(model.loss_curve_)
        run = only(logged())
        assert run.status is None
        assert run.metrics["samples_seen"] == [(0, 50), (1, 100), (2, 150)]
        assert run.metrics["epoch_loss"] == list(enumerate(curve))
        assert run.params["learning_rate_init"] == "0.5"
        del model
        gc.collect()
        assert only(logged()).status == "FINISHED"

    def test_estimators_by_turns_have_a_run_each(self, logged: Logged) -> None:
        """Two estimators trained alternately do not share a run."""
        models = [SGDClassifier(alpha=0.1), SGDClassifier(alpha=0.2)]
        for _ in range(2):
            for model in models:
                model.partial_fit(X, Y, classes=[0, 1])
        assert [run.params["alpha"] for run in logged()] == ["0.1", "0.2"]
        assert [len(run.metrics["samples_seen"]) for run in logged()] == [2, 2]

    def test_fit_ends_the_loop(self, logged: Logged) -> None:
        """A fit of the same estimator is a training of its own."""
        model = SGDClassifier().partial_fit(X, Y, classes=[0, 1])
        model.fit(X, Y)
        assert [run.status for run in logged()] == ["FINISHED", "FINISHED"]

    def test_disable_ends_the_loop(self, logged: Logged) -> None:
        """Switching off ends the runs that no further call could reach."""
        model = SGDClassifier().partial_fit(X, Y, classes=[0, 1])
        autolog.disable()
        model.partial_fit(X, Y)
        assert only(logged()).status == "FINISHED"
        assert len(only(logged()).metrics["samples_seen"]) == 1

    def test_exception_fails_the_run(self, logged: Logged) -> None:
        """A call that raises ends the run FAILED."""
        model = SGDClassifier().partial_fit(X, Y, classes=[0, 1])
        with pytest.raises(ValueError, match="features"):
            model.partial_fit(X[:, :2], Y)
        assert only(logged()).status == "FAILED"
