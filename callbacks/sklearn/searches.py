"""What a search has found: its table, and its best candidates as child runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from autolog import recorder
from autolog.callbacks.sklearn import estimators
from autolog.callbacks.sklearn.table import Table

if TYPE_CHECKING:
    from autolog.recorder import Run, Training

_NO_METRICS = ("param", "split")
"""How the columns of a search begin that hold what was tried, or the scores of one fold."""


def log(training: Training, search: Any) -> None:
    """Log ``cv_results_`` as a table, the winner's params, and the best candidates."""
    best = getattr(search, "best_params_", {})
    training.log_params({f"best_{name}": value for name, value in best.items()})
    table = Table(getattr(search, "cv_results_", {}))
    training.log_text(table.as_csv(), "cv_results.csv")
    if training.run is not None and not _are_mlflows(training.run):
        _log_candidates(training.run, search, table)


def _are_mlflows(run: Run) -> bool:
    """Whether MLflow's own autologging makes the child runs."""
    utils = sys.modules.get("mlflow.utils.autologging_utils")
    if utils is None or not recorder.get().may_be_mlflows(run):
        return False
    return not utils.autologging_is_disabled("sklearn")


def _log_candidates(parent: Run, search: Any, table: Table) -> None:
    limit = recorder.get().settings.max_tuning_runs
    common = estimators.params(search.estimator)
    for row in sorted(table.rows(), key=_order(search, table))[:limit]:
        run = recorder.get().start_run(
            recorder.get().name_for(type(search.estimator).__name__),
            tags={"mlflow.autologging": "sklearn", **estimators.tags(search.estimator)},
            parent=parent,
            detached=True,
        )
        if run is not None:
            run.log_hook_params({**common, **row["params"]})
            run.log_hook_metrics(_metrics(row), 0)
            run.end()


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
