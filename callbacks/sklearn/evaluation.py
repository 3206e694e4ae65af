"""The user's calls of ``sklearn.metrics`` on predictions of an estimator that was fitted here.

The functions themselves stay the objects they are, so references taken before and pickles by name
keep their meaning. Each is scikit-learn's check of arguments round an inner function, held in a
cell of its closure: that is what is replaced. A function that is not made so is left alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from types import CellType, ModuleType
from typing import Any

from autolog import guard
from autolog.callbacks.sklearn import calls, neighbours, scores

_BETWEEN = frozenset(
    [
        *(__name__, "sklearn.metrics._scorer"),
        *("sklearn.utils._param_validation", "sklearn.utils.validation"),
    ]
)
"""Modules whose frames stand between a user's line and a metric."""

_replaced: list[tuple[CellType, Any, Any]] = []
"""Cells, with what stood in each and what stands there instead."""


def instrument(module: ModuleType) -> None:
    """Log what the metrics of `module` say of predictions."""
    if _replaced:
        return
    for name, cell in _cells(module):
        inner = cell.cell_contents
        cell.cell_contents = ours = _reporting(name, inner)
        _replaced.append((cell, inner, ours))


def uninstrument() -> None:
    """Put the inner functions back."""
    while _replaced:
        cell, inner, ours = _replaced.pop()
        if cell.cell_contents is ours:
            cell.cell_contents = inner


def _cells(module: ModuleType) -> Iterator[tuple[str, CellType]]:
    for name in module.__all__:
        function = neighbours.beneath(getattr(module, name, None))
        inner = getattr(function, "__wrapped__", None)
        if inspect.isfunction(function) and inner is not None:
            for cell in function.__closure__ or ():
                if cell.cell_contents is inner:
                    yield name, cell


def _reporting(name: str, metric: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(metric)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        value = metric(*args, **kwargs)
        with guard.shield("sklearn.metric"):
            given = [*args, *kwargs.values()]
            fitted = scores.predictor(*given)
            if fitted and calls.is_users(_BETWEEN) and not _is_mlflows(fitted, given):
                fitted.log(name, value)
        return value

    return wrapper


def _is_mlflows(fitted: scores.Fitted, given: Iterable[Any]) -> bool:
    run = fitted.training.run
    is_known = run is not None and neighbours.logs_metric_of(run, given)
    return is_known and calls.passes_mlflow(_BETWEEN)
