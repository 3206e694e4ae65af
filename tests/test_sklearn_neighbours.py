"""MLflow's own autologging of scikit-learn, on as well: one run a fit, each value once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from logged import LoggedRun, logged_runs
from support import run_script

if TYPE_CHECKING:
    from pathlib import Path

_SCRIPT = """
    import json, sys, warnings
    warnings.simplefilter("ignore")
    sys.modules["matplotlib"] = None  # MLflow's images take most of the time
    import autolog, mlflow
    import numpy as np
    import sklearn.metrics, sklearn.model_selection
    from sklearn.experimental import enable_halving_search_cv
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import recall_score  # before MLflow wraps it, so MLflow does not see it
    from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline

    X = np.arange(40.0)[:, None]  # of lists MLflow makes no child runs
    y = (X[:, 0] % 3 > 1).astype(int)

    def ours():
        autolog.enable()

    def theirs():
        mlflow.sklearn.autolog(log_models=False, silent=True)

    def perceptron(X, y):
        model = MLPClassifier((2,), max_iter=3, random_state=0).fit(X, y)
        chance = model.predict_proba(X)
        return {
            "curve": model.loss_curve_,
            "score": model.score(X, y),
            "f1": sklearn.metrics.f1_score(y, model.predict(X)),
            "recall": recall_score(y, model.predict(X)),
            "auc": sklearn.metrics.roc_auc_score(y, chance[:, 1]),  # a view: MLflow loses its trace
        }

    def search(kind):
        return kind(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)

    def use(X, y):
        known = perceptron(X, y)
        grid = search(GridSearchCV).fit(X, y)
        known["grid"] = [grid.score(X, y), grid.best_estimator_.score(X, y)]
        make_pipeline(search(GridSearchCV)).fit(X, y)
        search(HalvingGridSearchCV).fit(X, y)
        sklearn.model_selection.cross_val_score(LogisticRegression(), X, y, cv=2)
        return known

    known = []
    for first, second in (ours, theirs), (theirs, ours):
        first()
        second()
        known.append(use(X, y))
        autolog.disable()
        mlflow.sklearn.autolog(disable=True)
    ours()
    known.append(perceptron(X, y))
    print(json.dumps(known))
"""


@pytest.mark.timeout(150)
def test_in_both_orders(tmp_path: Path, autolog_home: Path) -> None:
    """One run a fit with epoch_loss; the user's scores once, under MLflow's names or under ours.

    Of the data there is what MLflow logs, and alone we log the same.
    """
    done = run_script(
        _SCRIPT,
        cwd=tmp_path,
        env={"AUTOLOG_MODE": "offline", "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "internal error" not in done.stderr
    runs = logged_runs(autolog_home)
    roots = [run for run in runs if run.start.parent_key is None]
    *both, alone = json.loads(done.stdout)
    assert len(roots) == 5 * len(both) + 1
    (ours,) = roots[-1].inputs
    assert ours["tags"] == [{"key": "mlflow.data.context", "value": "train"}]
    for order, known in enumerate(both):
        perceptron, grid, pipeline, halving, folds = roots[5 * order : 5 * order + 5]
        for run in (perceptron, grid, pipeline, folds):
            assert _doubles(run) == []
        assert perceptron.values("epoch_loss") == known["curve"]
        assert _scores_of(perceptron) == {
            "MLPClassifier_score_X": known["score"],
            "f1_score_X": known["f1"],
            "recall_score": known["recall"],
            "roc_auc_score": known["auc"],
        }
        assert "training_score" in perceptron.metrics, "MLflow's own are there"
        of_search, of_winner = known["grid"]
        assert _scores_of(grid) == {"GridSearchCV_score_X": of_search, "score": of_winner}
        assert len(folds.metrics["test_score"]) == 2
        for run in (grid, pipeline, halving):
            assert len(_children(run, runs)) == 2
        for run in (perceptron, grid, pipeline, halving):
            assert run.inputs[0]["dataset"] == ours["dataset"]
            assert all(each["tags"][0]["value"] in ("train", "eval") for each in run.inputs)
    last = roots[-1]
    assert last.metrics["score"] == [(0, alone["score"])], "MLflow's is off again"
    assert last.metrics["f1_score"] == [(0, alone["f1"])]


def _children(run: LoggedRun, runs: list[LoggedRun]) -> list[LoggedRun]:
    return [child for child in runs if child.start.parent_key == run.start.key]


def _doubles(run: LoggedRun) -> list[str]:
    """The names of metrics that have more than one value at a step."""
    return [name for name, values in run.metrics.items() if len(dict(values)) < len(values)]


def _scores_of(run: LoggedRun) -> dict[str, Any]:
    """What the user's own calls have scored; MLflow adds the variable's name."""
    return {
        name: values[0][1]
        for name, values in run.metrics.items()
        if "score" in name and not name.startswith(("training_", "best_"))
    }
