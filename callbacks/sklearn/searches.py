"""What a search has found: its table, and its best candidates as child runs."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from autolog import recorder
from autolog.callbacks.sklearn import estimators, neighbours
from autolog.callbacks.sklearn.table import Table

if TYPE_CHECKING:
    from autolog.recorder import Run, Training

_NO_METRICS = ("param", "split")
"""How the columns of a search begin that hold what was tried, or the scores of one fold."""


def log(training: Training, estimator: Any) -> None:
    """Of a search, or a pipeline that ends in one: the winner's params, table and candidates."""
    search = estimators.last_step(estimator)
    if not estimators.is_search(search):
        return
    best = getattr(search, "best_params_", {})
    training.log_params({f"best_{name}": value for name, value in best.items()})
    table = Table(getattr(search, "cv_results_", {}))
    training.log_text(table.as_csv(), "cv_results.csv")
    if training.run is not None and not neighbours.makes_child_runs(training.run, estimator):
        _log_candidates(training.run, search, table)


def _log_candidates(parent: Run, search: Any, table: Table) -> None:
    limit = recorder.get().settings.max_tuning_runs
    for row in sorted(table.rows(), key=_order(search, table))[:limit]:
        run = recorder.get().start_run(
            recorder.get().name_for(type(search.estimator).__name__),
            tags={"mlflow.autologging": "sklearn", **estimators.tags(search.estimator)},
            parent=parent,
            detached=True,
        )
        if run is not None:
            run.log_hook_params(_params(search, row["params"]))
            run.log_hook_metrics(_metrics(row), 0)
            run.end()


def _params(search: Any, tried: Mapping[str, Any]) -> dict[str, Any]:
    """All params of a candidate, made as the search makes it: what is tried may be a whole step."""
    from sklearn.base import clone

    candidate = clone(search.estimator).set_params(**clone(tried, safe=False))
    return {**estimators.params(candidate), **tried}


def _order(search: Any, table: Table) -> Any:
    """The best first; of a halving search those that survived longest come before the others."""
    ranks = [name for name in table.columns if name.startswith("rank_test_")]
    chosen = f"rank_test_{search.refit}"
    rank = chosen if chosen in ranks else ranks[0]
    return lambda row: (-row.get("iter", 0), row[rank])


def _metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, Real) and not name.startswith(_NO_METRICS)
    }
