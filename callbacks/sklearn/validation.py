"""``cross_validate`` and ``cross_val_score``: one run with the scores of all folds."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

from autolog import guard, hooks
from autolog.callbacks.sklearn import calls, trainings
from autolog.callbacks.sklearn.table import Table
from autolog.records import Status

if TYPE_CHECKING:
    from autolog.recorder import Training

_MODULE = "sklearn.model_selection._validation"
_BETWEEN = frozenset([__name__, _MODULE, "sklearn.utils._param_validation"])
"""Modules whose frames stand between a user's line and the folds."""

_is_on = False


def instrument(module: ModuleType) -> None:
    """Log what `module` validates.

    The functions themselves stay what they are: others send them to worker processes, by name.
    The method that runs the folds is called in the user's process only.
    """
    global _is_on
    _is_on = True
    hooks.wrap(module.Parallel, "__call__", _reporting)


def uninstrument() -> None:
    """Put the method back."""
    global _is_on
    _is_on = False
    module = sys.modules.get(_MODULE)
    if module is not None:
        hooks.unwrap(module.Parallel, "__call__")


def _reporting(method: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        frame = inspect.currentframe()
        caller = frame and frame.f_back
        if not (_is_on and caller and _validates(caller)):
            return method(self, *args, **kwargs)
        return _validate(method, self, args, kwargs, caller.f_locals)

    return wrapper


def _validates(frame: FrameType) -> bool:
    code = frame.f_code
    return code.co_name == "cross_validate" and frame.f_globals.get("__name__") == _MODULE


def _validate(
    run_folds: Callable[..., Any],
    parallel: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    told: Mapping[str, Any],
) -> Any:
    with calls.outermost(_BETWEEN) as is_users:
        training = None
        if is_users:
            with guard.shield("sklearn.begin"):
                training = trainings.begin(told["estimator"])
        if training is None:
            return run_folds(parallel, *args, **kwargs)
        with training:
            try:
                folds = run_folds(parallel, *args, **kwargs)
            finally:
                trainings.log_settings(training, told["estimator"])
            with guard.shield("sklearn.cross_validate"):
                _log(training, told, folds)
    return folds


def _log(training: Training, told: Mapping[str, Any], folds: Sequence[Mapping[str, Any]]) -> None:
    if training.silent:
        return
    training.log_params({f"cross_validate.{name}": told[name] for name in ("cv", "scoring")})
    table = Table(_columns(folds))
    training.log_text(table.as_csv(), "cross_validate.csv")
    for number, row in enumerate(table.rows()):
        training.log_metrics(row, number)
    training.log_metrics(_summary(table), 0)
    if all(fold["fit_error"] is not None for fold in folds):
        training.end(Status.FAILED)


def _columns(folds: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The folds as ``cross_validate`` is going to return them."""
    columns = {name: [fold[name] for fold in folds] for name in ("fit_time", "score_time")}
    for kind in ("test", "train"):
        scores = [fold[f"{kind}_scores"] for fold in folds if f"{kind}_scores" in fold]
        names = next((tuple(score) for score in scores if isinstance(score, dict)), None)
        if names is None:
            columns |= {f"{kind}_score": scores} if scores else {}
        else:  # a fold that failed has one value for all of them
            columns |= {
                f"{kind}_{name}": [s[name] if isinstance(s, dict) else s for s in scores]
                for name in names
            }
    return columns


def _summary(table: Table) -> dict[str, float]:
    import numpy as np

    means = {f"mean_{name}": float(np.mean(column)) for name, column in table.columns.items()}
    return means | {f"std_{name}": float(np.std(col)) for name, col in table.columns.items()}
