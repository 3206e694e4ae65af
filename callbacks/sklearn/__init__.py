"""scikit-learn: each outermost ``fit`` that a user's line asks for is a run.

Pipelines, searches, ensembles and user-defined estimators are one run each; transformers on their
own are none. A loop over ``partial_fit`` is one run for each estimator, one step for each call;
``cross_validate`` and ``cross_val_score`` are one run.

Logged after the fit:

* params: ``get_params(deep=True)``; of a search its own, with ``best_<name>`` of the winner;
* ``epoch_loss`` with step = iteration, where the estimator keeps a loss curve (multi-layer
  perceptrons, gradient boosting, histogram gradient boosting with early stopping), and other
  curves under their attribute's name. With ``warm_start`` only what this fit added;
* what the fit found: ``best_cv_score``, ``n_iter`` (the largest, where there are several), ...;
* of a search ``cv_results.csv``, and the best candidates as child runs (``max_tuning_runs``);
* tags ``estimator_name``, ``estimator_class`` and the shapes of the data;
* later, in the same run: what the user's own calls of ``score`` and of ``sklearn.metrics`` say.

Of a pipeline the last step speaks, of a search the estimator that was refitted.
Nothing is predicted or scored for the log, unless ``training_metrics`` asks for it.

==================  ==========================================================
`patches`           which attributes of scikit-learn are replaced
`calls`             which calls are trainings
`trainings`         one fit and its run
`loops`             loops over ``partial_fit``
`searches`          the table and the candidates of a search
`validation`        ``cross_validate``
`scores`            the user's own calls of ``score``, and whose a prediction is
`evaluation`        the user's own calls of ``sklearn.metrics``
`training_metrics`  the fitted estimator against its training data, and
                    `figures` of it
`neighbours`        what MLflow's own autologging logs of the same fit
`callback`          the callback for scikit-learn's own callback API
`estimators`        what an estimator says about itself
==================  ==========================================================
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TypeVar

from autolog.callbacks.sklearn import calls, loops, patches
from autolog.callbacks.sklearn.callback import AutologCallback
from autolog.callbacks.sklearn.calls import call

__all__ = ["AutologCallback", "autologged", "call", "instrument", "uninstrument"]

Estimator = TypeVar("Estimator")


def instrument(module: ModuleType) -> None:
    """Log every estimator of ``sklearn.base``, those of classes defined later included."""
    calls.logged_class = module.BaseEstimator
    patches.wrap_family(module.BaseEstimator)


def uninstrument() -> None:
    """Put every method back and end the runs of ``partial_fit`` loops.

    Except for the estimators that `autologged` has marked, while they live.
    """
    calls.logged_class = None
    marked = dict(calls.marked)
    loops.end_all(but=marked.keys())
    base = sys.modules.get("sklearn.base")
    if base is not None:
        patches.unwrap_all(base.BaseEstimator, but=map(type, marked.values()))


def autologged(estimator: Estimator) -> Estimator:
    """The same estimator, marked: its fits are logged, with or without ``autolog.enable()``.

    The mark belongs to this object alone; clones, copies and pickles do not carry it.
    Raises `TypeError` for an object without a ``fit`` method.
    """
    if not callable(getattr(estimator, "fit", None)):
        raise TypeError(f"autologged() takes an estimator; {type(estimator).__name__} has no fit()")
    patches.wrap_class(type(estimator))
    calls.marked[id(estimator)] = estimator
    return estimator
