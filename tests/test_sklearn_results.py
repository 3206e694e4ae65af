# ruff: noqa: N803 - fit(self, X, y) is how scikit-learn calls; fixtures are asked for by name
"""What comes of searches, of ``cross_validate`` and of the user's own ``score``."""

from __future__ import annotations

import inspect
import io
import pickle
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
import pytest
from classifiers import Voter, X, Y, only
from readback import Experiment
from sklearn import metrics
from sklearn.base import ClassifierMixin, clone
from sklearn.cluster import KMeans
from sklearn.exceptions import FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 - makes the search visible
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support import MlflowServer, eventually

import autolog
from autolog import session
from autolog.callbacks.sklearn import scores

if TYPE_CHECKING:
    from logged import Logged, LoggedRun

CS = [0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0]


def children(runs: list[LoggedRun]) -> list[LoggedRun]:
    """The runs inside the only other one."""
    parent = only(runs)
    return [run for run in runs if run.start.parent_key == parent.start.key]


def frame(text: str) -> pd.DataFrame:
    """A table as its reader gets it."""
    return pd.read_csv(io.StringIO(text))


class TestSearches:
    def test_the_table_is_what_mlflow_writes(self, logged: Logged) -> None:
        """cv_results.csv holds cv_results_ as pandas writes it, absent params empty."""
        grid = [{"C": [0.1, 1.0]}, {"tol": [0.01], "class_weight": ["balanced", None]}]
        search = GridSearchCV(LogisticRegression(), grid, cv=2).fit(X, Y)
        expected = frame(pd.DataFrame.from_dict(search.cv_results_).to_csv(index=False))
        pd.testing.assert_frame_equal(frame(only(logged()).texts["cv_results.csv"]), expected)

    def test_the_best_candidates_are_child_runs(self, logged: Logged) -> None:
        """Five by default: all params of the candidate, and its means, deviations and ranks."""
        search = GridSearchCV(LogisticRegression(tol=0.01), {"C": CS}, cv=2).fit(X, Y)
        table = pd.DataFrame.from_dict(search.cv_results_).nsmallest(5, "rank_test_score")
        found = children(logged())
        assert [run.params["C"] for run in found] == [str(c) for c in table["param_C"]]
        assert found[0].params["C"] == str(search.best_params_["C"])
        for run, (_, row) in zip(found, table.iterrows(), strict=True):
            assert (run.model, run.status) == ("LogisticRegression", "FINISHED")
            assert run.tags["estimator_name"] == "LogisticRegression"
            assert run.params["tol"] == "0.01"
            names = [n for n in table if not n.startswith(("param", "split"))]
            assert run.metrics == {name: [(0, row[name])] for name in names}

    def test_candidates_that_are_steps(self, logged: Logged) -> None:
        """A child run has the params of the step that was tried, not of the one it replaced."""
        pipeline, mine = make_pipeline(StandardScaler(), LogisticRegression(C=7)), Ridge(alpha=3)
        grid = [
            {"logisticregression": [LogisticRegression(C=0.1), RidgeClassifier()]},
            {"logisticregression": [mine], "logisticregression__alpha": [0.5]},
        ]
        GridSearchCV(pipeline, grid, cv=2, scoring="neg_mean_squared_error").fit(X, Y)
        found = sorted(children(logged()), key=lambda run: run.params["steps"])
        steps = LogisticRegression(), Ridge(), RidgeClassifier()
        expected = [make_pipeline(StandardScaler(), step).get_params() for step in steps]
        assert [len(run.params) for run in found] == [len(params) for params in expected]
        assert found[0].params["logisticregression__C"] == "0.1"
        assert "LogisticRegression(C=0.1)" in found[0].params["steps"]
        assert [run.params.get("logisticregression__alpha") for run in found[1:]] == ["0.5", "1.0"]
        assert mine.alpha == 3

    def test_a_search_that_ends_a_pipeline(self, logged: Logged) -> None:
        """Table, winner and candidates are those of the search on its own."""
        search = GridSearchCV(LogisticRegression(), {"C": [0.01, 1.0]}, cv=2)
        make_pipeline(StandardScaler(), search).fit(X, Y)
        run = only(logged())
        assert run.params["best_C"] == str(search.best_params_["C"])
        assert run.metrics["best_cv_score"] == [(0, search.best_score_)]
        assert len(frame(run.texts["cv_results.csv"])) == len(children(logged())) == 2

    @pytest.mark.parametrize("limit", [0, 2, 100])
    def test_as_many_child_runs_as_wanted(self, logged: Logged, limit: int) -> None:
        """max_tuning_runs says how many, up to all of them."""
        autolog.enable(max_tuning_runs=limit)
        RandomizedSearchCV(Ridge(), {"alpha": [1, 2, 3]}, n_iter=3, cv=2).fit(X, Y)
        assert len(children(logged())) == min(limit, 3)

    def test_survivors_of_a_halving_search_come_first(self, logged: Logged) -> None:
        """What a halving search tried with the most resources is best, and names its run."""
        search = HalvingGridSearchCV(LogisticRegression(), {"C": CS}, cv=2, random_state=0)
        search.fit(X, Y)
        found = children(logged())
        assert found[0].params["C"] == str(search.best_params_["C"])
        iterations = [run.values("iter")[0] for run in found]
        assert iterations == sorted(iterations, reverse=True)
        assert iterations[0] == search.n_iterations_ - 1
        assert only(logged()).values("best_cv_score") == [search.best_score_]

    def test_several_scores(self, logged: Logged) -> None:
        """The rank of the score that refits orders the candidates."""
        scoring = ["accuracy", "neg_log_loss"]
        search = GridSearchCV(
            LogisticRegression(), {"C": CS}, cv=2, scoring=scoring, refit="neg_log_loss"
        ).fit(X, Y)
        found = children(logged())
        assert found[0].params["C"] == str(search.best_params_["C"])
        ranks = [run.values("rank_test_neg_log_loss")[0] for run in found]
        assert ranks == sorted(ranks)

    def test_a_search_without_refit(self, logged: Logged) -> None:
        """Without a winner to refit the table and the candidates are there all the same."""
        scoring = ["accuracy", "f1"]
        GridSearchCV(LogisticRegression(), {"C": CS}, cv=2, scoring=scoring, refit=False).fit(X, Y)
        run = only(logged())
        assert len(frame(run.texts["cv_results.csv"])) == len(CS)
        assert len(children(logged())) == 5

    def test_the_search_stays_the_last_run(self, logged: Logged) -> None:
        """Child runs of candidates are never current."""
        GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=2).fit(X, Y)
        last = session.get().recorder.last_run
        assert last is not None
        assert last.key == only(logged()).start.key


class TestCrossValidate:
    def test_one_run_with_every_fold(self, logged: Logged) -> None:
        """Scores and times of each fold are those that the function returns, step = fold."""
        scores = cross_validate(
            LogisticRegression(C=0.5),
            X,
            Y,
            cv=3,
            scoring=["accuracy", "roc_auc"],
            return_train_score=True,
            return_estimator=True,
        )
        del scores["estimator"]
        run = only(logged())
        for name, values in scores.items():
            assert run.metrics[name] == list(enumerate(values))
            assert run.values(f"mean_{name}") == [pytest.approx(values.mean())]
            assert run.values(f"std_{name}") == [pytest.approx(values.std())]
        assert (run.model, run.status) == ("LogisticRegression", "FINISHED")
        assert run.params["C"] == "0.5"
        assert run.params["cross_validate.cv"].startswith("StratifiedKFold(n_splits=3")
        pd.testing.assert_frame_equal(
            frame(run.texts["cross_validate.csv"])[sorted(scores)],
            pd.DataFrame(scores)[sorted(scores)],
        )

    def test_cross_val_score(self, logged: Logged) -> None:
        """The single score is test_score, as cross_validate calls it."""
        scores = cross_val_score(make_pipeline(StandardScaler(), Voter()), X, Y, cv=3)
        assert only(logged()).metrics["test_score"] == list(enumerate(scores))

    def test_folds_in_threads(self, logged: Logged) -> None:
        """Folds that joblib fits in other threads belong to the same run."""
        with joblib.parallel_config("threading", n_jobs=2):
            cross_val_score(Voter(), X, Y, cv=3)
        assert len(only(logged()).metrics["test_score"]) == 3

    def test_some_folds_fail(self, logged: Logged) -> None:
        """A fold that failed has the error score, with a callable of several scores too."""

        class Picky(LogisticRegression):
            def fit(self, X: Any, y: Any) -> Picky:
                if X[0, 0] == picked:
                    raise ValueError
                super().fit(X, y)
                return self

        def scoring(model: Any, X: Any, y: Any) -> dict[str, float]:
            return {"accuracy": model.score(X, y)}

        halves = list(range(100)), list(range(100, 200))
        folds, picked = [halves, halves[::-1]], X[0, 0]  # which begins what the first trains on
        with pytest.warns(FitFailedWarning):
            scores = cross_validate(Picky(), X, Y, cv=folds, scoring=scoring, error_score=-1.0)
        assert scores["test_accuracy"][0] == -1
        assert only(logged()).values("test_accuracy") == list(scores["test_accuracy"])
        assert only(logged()).status == "FINISHED"

    @pytest.mark.parametrize("error_score", ["raise", 0.0])
    def test_it_fails(self, logged: Logged, error_score: object) -> None:
        """An exception of a fold, or of all folds, passes and ends the run FAILED."""
        with pytest.raises(ValueError, match="alpha|fits failed"):
            cross_validate(Ridge(alpha=-1), X, Y, cv=2, error_score=error_score)
        assert only(logged()).status == "FAILED"

    def test_inside_a_training(self, logged: Logged) -> None:
        """Folds that a fit asks for belong to that fit."""

        class Choosing(LogisticRegression):
            def fit(self, X: Any, y: Any) -> Choosing:
                self.scores_ = cross_val_score(LogisticRegression(), X, y, cv=2)
                super().fit(X, y)
                return self

        Choosing().fit(X, Y)
        run = only(logged())
        assert (run.model, "test_score" in run.metrics) == ("Choosing", False)

    def test_what_is_no_validation(self, logged: Logged) -> None:
        """Predictions of folds are no training."""
        cross_val_predict(LogisticRegression(), X, Y, cv=2)
        assert logged() == []


class TestScores:
    def test_into_the_run_of_the_fit(self, logged: Logged) -> None:
        """Each call's value is the next step of score, though the run has ended."""
        model = LogisticRegression().fit(X, Y)
        other = Ridge().fit(X, Y)
        values = [model.score(X, Y), model.score(X[:50], Y[:50])]
        other_value = other.score(X, Y)
        first, second = logged()
        assert first.metrics["score"] == list(enumerate(values))
        assert second.metrics["score"] == [(0, other_value)]
        assert first.status == "FINISHED"

    def test_of_pipelines_and_searches(self, logged: Logged) -> None:
        """What calls other scores counts once, and a search's winner counts as the search."""
        pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
        search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1]}, cv=2).fit(X, Y)
        values = [search.score(X, Y), search.best_estimator_.score(X, Y)]
        value = pipeline.score(X, Y)
        first, second, *_ = logged()
        assert first.metrics["score"] == [(0, value)]
        assert second.metrics["score"] == list(enumerate(values))

    def test_of_a_users_own_class(self, logged: Logged) -> None:
        """A score that asks the inherited one is one value: what it returned."""

        class Doubling(LogisticRegression):
            def score(self, X: Any, y: Any) -> float:
                return 2 * float(super().score(X, y))

        model = Doubling().fit(X, Y)
        value = model.score(X, Y)
        assert only(logged()).metrics["score"] == [(0, value)]

    def test_of_a_mixin_of_the_users(self, logged: Logged) -> None:
        """Methods that come from a class that is no estimator are seen as well."""

        class Fitting(ClassifierMixin):
            def fit(self, X: Any, y: Any) -> Fitting:
                self.classes_ = np.unique(y)
                return self

        class Constant(Fitting, LogisticRegression):
            def predict(self, X: Any) -> Any:
                return np.ones(len(X))

        model = Constant().fit(X, Y)
        assert model.score(X, Y) == Y.mean()
        assert only(logged()).metrics["score"] == [(0, Y.mean())]

    def test_of_a_loop(self, logged: Logged) -> None:
        """Scores between calls of partial_fit go into the loop's run."""
        model = SGDClassifier()
        values = [model.partial_fit(X, Y, classes=[0, 1]).score(X, Y) for _ in range(3)]
        assert only(logged()).metrics["score"] == list(enumerate(values))

    def test_of_others_is_nobodys(self, logged: Logged) -> None:
        """Scores of what was not fitted here, and those that scikit-learn asks for, are not."""
        model = LogisticRegression().fit(X, Y)
        with autolog.pause():
            unseen = clone(model).fit(X, Y)
            model.score(X, Y)
        unseen.score(X, Y)
        permutation_importance(model, X[:20], Y[:20], n_repeats=1)
        assert "score" not in only(logged()).metrics

    def test_of_a_clustering(self, logged: Logged) -> None:
        """Whatever number an estimator calls its score is logged."""
        model = KMeans(2, random_state=0).fit(X)
        value = model.score(X)
        assert only(logged()).metrics["score"] == [(0, value)]


class TestMetrics:
    def test_of_predictions(self, logged: Logged) -> None:
        """A metric of what an estimator predicted goes into its run, under its function's name."""
        model = LogisticRegression().fit(X[:100], Y[:100])
        guess, chance = model.predict(X), model.predict_proba(X)
        values = [metrics.f1_score(Y, guess), metrics.f1_score(Y[:50], guess[:50])]
        auc = metrics.roc_auc_score(y_true=Y, y_score=chance[:, 1])
        run = only(logged())
        assert run.metrics["f1_score"] == list(enumerate(values))
        assert run.metrics["roc_auc_score"] == [(0, auc)]
        assert run.metrics.keys() == {"n_iter", "f1_score", "roc_auc_score"}

    def test_of_a_scorer(self, logged: Logged) -> None:
        """A scorer that the user calls is a call of its metric."""
        model = LogisticRegression().fit(X, Y)
        value = metrics.get_scorer("neg_log_loss")(model, X, Y)
        assert only(logged()).metrics["log_loss"] == [(0, -value)]

    def test_of_anything_else(self, logged: Logged) -> None:
        """Copies, other people's arrays, and what scikit-learn computes inside, are not logged."""
        model = LogisticRegression().fit(X, Y)
        guess = model.predict(X)
        metrics.accuracy_score(Y, guess.copy())
        metrics.accuracy_score(Y, Y)
        metrics.confusion_matrix(Y, guess)
        model.score(X, Y)
        permutation_importance(model, X[:20], Y[:20], n_repeats=1, scoring="f1")
        with autolog.pause():
            metrics.accuracy_score(Y, guess)
        assert only(logged()).metrics.keys() == {"n_iter", "score"}

    def test_the_functions_stay_what_they_are(self, logged: Logged) -> None:
        """Pickles, signatures and early references are those of scikit-learn, on and off."""
        autolog.disable()
        function = metrics.f1_score
        before = inspect.signature(function), function.__wrapped__, pickle.dumps(function)
        cells = [cell.cell_contents for cell in function.__closure__]
        autolog.enable()
        assert metrics.f1_score is function
        assert cells != [cell.cell_contents for cell in function.__closure__]
        now = inspect.signature(function), function.__wrapped__, pickle.dumps(function)
        assert now == before
        with pytest.raises(ValueError, match="'average' parameter of f1_score"):
            function(Y, Y, average="none such")
        autolog.disable()
        assert cells == [cell.cell_contents for cell in function.__closure__]

    def test_of_predictions_that_are_lists(self, logged: Logged) -> None:
        """Whatever a user's predict returns is returned; what cannot be followed is not logged."""

        class Listing(LogisticRegression):
            def predict(self, X: Any) -> Any:
                return list(super().predict(X))

        guess = Listing().fit(X, Y).predict(X)
        assert isinstance(guess, list)
        metrics.accuracy_score(Y, guess)
        assert "accuracy_score" not in only(logged()).metrics

    def test_predictions_are_let_go(self, logged: Logged) -> None:
        """What was predicted lives no longer than the user's own references to it."""
        model = LogisticRegression().fit(X, Y)
        guess = weakref.ref(model.predict(X))
        assert guess() is None
        assert scores._predictions == {}


@pytest.mark.recent  # MLflow 2.18 lists files by the tracking URI of the process only
@pytest.mark.timeout(120)
def test_it_all_arrives(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    """On the server: a search with table and children, a later score, and images of a fit."""
    experiment = Experiment(mlflow_server)
    score = float(
        experiment.script(
            """
            import autolog
            autolog.enable(max_tuning_runs=2, training_metrics=True)
            from sklearn.datasets import load_breast_cancer
            from sklearn.linear_model import LogisticRegression
            from sklearn.model_selection import GridSearchCV
            X, y = load_breast_cancer(return_X_y=True)
            model = LogisticRegression(max_iter=50)
            search = GridSearchCV(model, {"C": [0.1, 1.0, 10.0]}, cv=2).fit(X, y)
            assert autolog.flush(60).complete
            print(search.score(X[::2], y[::2]))
            """,
            tmp_path,
            PYTHONWARNINGS="ignore",
        )
    )
    runs = experiment.runs(3)
    (search,) = (run for run in runs.values() if experiment.parent(run) is None)
    candidates = [run for run in runs.values() if run is not search]
    assert {experiment.parent(run) for run in candidates} == {search.info.run_id}
    assert experiment.values(search, "score", 1) == [score]
    client = mlflow_server.client()
    assert client.get_run(search.info.run_id).info.status == "FINISHED"
    expected = {"cv_results.csv", "estimator.html", "training_confusion_matrix.png"}
    expected |= {"training_roc_curve.png", "training_precision_recall_curve.png"}
    eventually(lambda: {f.path for f in client.list_artifacts(search.info.run_id)} == expected, 30)
