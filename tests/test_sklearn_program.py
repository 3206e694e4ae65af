# ruff: noqa: N803 - fit(self, X, y) is how scikit-learn calls; fixtures are asked for by name

from __future__ import annotations

import gc
import inspect
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.base
from classifiers import Chatty, Voter, X, Y, only
from logged import Logged, logged_runs
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.neural_network import MLPClassifier
from support import run_script

import autolog
from autolog.callbacks.sklearn import AutologCallback, patches

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


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
                    cls.__mro__,
                    isinstance(cls(), ClassifierMixin),
                    str(getattr(cls(), "__sklearn_tags__", str)()),  # scikit-learn 1.6
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

    @pytest.mark.skipif(
        "get_metadata_routing" not in vars(GridSearchCV.__mro__[1]), reason="scikit-learn < 1.4"
    )
    def test_metadata_reaches_whom_it_did(self, off: Logged) -> None:
        """With metadata routing a search passes weights on as it does without us."""

        def train() -> list[float]:
            with sklearn.config_context(enable_metadata_routing=True):
                model = Ridge().set_fit_request(sample_weight=True)
                model.set_score_request(sample_weight=True)
                search = GridSearchCV(model, {"alpha": [1.0, 10.0]}, cv=2)
                search.fit(X, Y, sample_weight=np.linspace(0.1, 5, len(Y)))
                return list(search.cv_results_["mean_test_score"])

        without = train()
        autolog.enable()
        assert train() == without
        assert only(off()).model == "GridSearchCV"

    def test_five_hundred_fits_are_quiet(self, tmp_path: Path, autolog_home: Path) -> None:
        """A loop of fits says some lines, not one for each run, and logs them all."""
        done = run_script(
            """
            import autolog
            autolog.enable()
            from sklearn.linear_model import Ridge
            for alpha in range(1, 501):
                Ridge(alpha=alpha).fit([[0.0], [1.0]], [0.0, 1.0])
            """,
            cwd=tmp_path,
            env={"AUTOLOG_MODE": "offline", "AUTOLOG_SEGMENT_SIZE": str(64 << 20)},
        )
        assert (done.returncode, done.stdout) == (0, "")
        assert len(done.stderr.splitlines()) < 10
        runs = logged_runs(autolog_home)
        assert [run.params["alpha"] for run in runs] == [str(n) for n in range(1, 501)]
        assert {run.status for run in runs} == {"FINISHED"}


_HOOKS = [
    *("calls._is_called_by_sklearn", "trainings.begin", "trainings.estimators.is_transformer"),
    *("trainings.estimators.curves", "trainings.estimators.params", "trainings.estimators.tags"),
    *("trainings.Data.of_call", "trainings.Data.shapes", "trainings._lengths_to_continue"),
    *("trainings.scores.remember", "trainings.searches.log", "trainings.training_metrics.log"),
    *("searches._log_candidates", "loops._loop_of", "loops._log_step", "validation._log"),
    *("scores.predictor", "scores.Fitted.log", "scores._note", "scores.recorder.get"),
    # scikit-learn 1.3 has no callbacks
    pytest.param("callback._Fit", marks=pytest.mark.recent),
    pytest.param("callback._Fit.log_score", marks=pytest.mark.recent),
]


@pytest.mark.parametrize("name", _HOOKS)
def test_every_hook_may_break(
    off: Logged,
    monkeypatch: pytest.MonkeyPatch,
    swallowed: list[tuple[str, Exception]],
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """Whichever of our functions raises, the training is that without us; counted, said once."""

    def train() -> list[object]:
        model = LogisticRegression(max_iter=9)
        if hasattr(model, "set_callbacks"):
            model.set_callbacks(AutologCallback("neg_log_loss"))
        loop = SGDClassifier(random_state=0)
        results = [
            model.fit(X, Y).coef_.tolist(),
            model.score(X, Y),
            log_loss(Y, model.predict_proba(X)),
            GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=2).fit(X, Y).best_params_,
            [loop.partial_fit(X, Y, classes=[0, 1]).coef_.tolist() for _ in range(2)],
            cross_validate(Ridge(), X, Y, cv=2)["test_score"].tolist(),
        ]
        return [*results, LogisticRegression().fit(X, Y).coef_.tolist()]

    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError(name)

    without = train()
    capsys.readouterr()
    autolog.enable(silent=False, training_metrics=True)
    with monkeypatch.context() as patched:
        patched.setattr(f"autolog.callbacks.sklearn.{name}", broken)
        assert train() == without
    assert {str(error) for _, error in swallowed} == {name}
    assert sum(autolog.status()["internal_errors"].values()) == len(swallowed)
    places = {place for place, _ in swallowed}
    assert capsys.readouterr().err.count("internal error") == len(places)
    swallowed.clear()


_ORDERS = ["import enable", "enable import", "import use enable"]
_ORDER_SCRIPT = """
    import os, sys
    import autolog

    ORDER = os.environ["ORDER"].split()

    def attributes():
        base = sys.modules["sklearn.base"].BaseEstimator
        classes, left = {base}, [base]
        while left:
            fresh = set(left.pop().__subclasses__()) - classes
            classes |= fresh
            left.extend(fresh)
        owners = {ancestor for cls in classes for ancestor in cls.__mro__}
        owners.add(sys.modules["sklearn.utils.parallel"].Parallel)
        found = {(o, name): value for o in owners for name, value in list(vars(o).items())}
        for metric in vars(sys.modules["sklearn.metrics"]).values():
            cells = getattr(metric, "__closure__", None) or ()
            found |= {(metric, n): cell.cell_contents for n, cell in enumerate(cells)}
        inner = {(*key, "fn"): v.fn for key, v in found.items() if hasattr(v, "fn")}
        return {k: v for k, v in (found | inner).items() if k[1] not in EXPECTED}

    EXPECTED = {"__abstractmethods__", "_abc_impl"}

    def use():
        from sklearn.linear_model import Ridge
        from sklearn.model_selection import GridSearchCV, cross_val_score
        X, y = [[float(i)] for i in range(8)], [float(i) for i in range(8)]
        GridSearchCV(Ridge(), {"alpha": [1.0, 2.0]}, cv=2).fit(X, y).score(X, y)
        cross_val_score(Ridge(), X, y, cv=2)

    def ours():
        return [key for key, value in attributes().items()
                if "autolog" in getattr(getattr(value, "__code__", None), "co_filename", "")]

    for word in ORDER:
        if word == "import":
            import sklearn.linear_model, sklearn.model_selection, sklearn.pipeline
            before = attributes()
        elif word == "enable":
            autolog.enable()
            autolog.enable()
        else:
            use()
    use()
    autolog.disable()
    assert not ours(), ours()
    if ORDER[0] == "import":
        changed = [key for key, value in attributes().items() if value is not before.get(key)]
        assert not changed, changed
        assert not before.keys() - attributes().keys()
    use()
    autolog.enable()
    assert ours()
    use()
    autolog.disable()
    assert not ours()
"""


@pytest.mark.parametrize("order", _ORDERS)
def test_orders_of_on_and_off(tmp_path: Path, autolog_home: Path, order: str) -> None:
    """Whenever it is switched on: logged while on, and off it leaves every attribute as it was."""
    done = run_script(_ORDER_SCRIPT, cwd=tmp_path, env={"AUTOLOG_MODE": "offline", "ORDER": order})
    assert done.returncode == 0, done.stderr
    roots = [run for run in logged_runs(autolog_home) if run.start.parent_key is None]
    assert [run.model for run in roots] == ["GridSearchCV", "Ridge"] * 2
    assert [len(run.values("score")) for run in roots] == [1, 0] * 2


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


def _methods() -> dict[tuple[type, str], object]:
    """Every training method of every estimator class that is loaded."""
    return {
        (cls, name): vars(owner).get(attribute)
        for cls in patches.lineage_of_family(sklearn.base.BaseEstimator)
        for name, owner, attribute in patches.methods(cls)
    }
