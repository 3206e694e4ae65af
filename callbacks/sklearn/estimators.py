"""What a scikit-learn estimator says about itself, without a prediction and without an import.

The estimators of scikit-learn are known by the names of their classes, so that nothing of it is
loaded that the user's program has not loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

_CURVES = (
    *("validation_scores_", "validation_score_", "oob_scores_", "oob_improvement_"),
    "lower_bounds_",
)
_FINDINGS = ("n_iter_", "best_loss_", "oob_score_", "inertia_", "lower_bound_")


def is_search(estimator: Any) -> bool:
    """True for grid, randomized and halving searches."""
    return "BaseSearchCV" in _lineage(estimator)


def is_search_of_mlflows(estimator: Any) -> bool:
    """True for a search whose candidates MLflow's own autologging logs as child runs."""
    return bool(_lineage(estimator) & {"GridSearchCV", "RandomizedSearchCV"})


def is_transformer(estimator: Any) -> bool:
    """True for what only prepares data for others.

    Some estimators that predict have no such method before the fit, so their class counts too.
    """
    if _lineage(estimator) & {"BaseSearchCV", "ClassifierMixin", "RegressorMixin"}:
        return False
    transforms = hasattr(estimator, "transform") or hasattr(estimator, "fit_transform")
    return transforms and not (hasattr(estimator, "predict") or hasattr(estimator, "fit_predict"))


def tags(estimator: Any) -> dict[str, str]:
    """The tags that name an estimator."""
    cls = type(estimator)
    return {
        "estimator_name": cls.__name__,
        "estimator_class": f"{cls.__module__}.{cls.__qualname__}",
    }


def params(estimator: Any) -> dict[str, Any]:
    """The params of an estimator and of its parts; of a search its own alone.

    An estimator that does not derive from ``BaseEstimator`` may have none.
    """
    if not hasattr(estimator, "get_params"):
        return {}
    found: dict[str, Any] = estimator.get_params(deep=not is_search(estimator))
    return found


def winner(estimator: Any) -> Any:
    """The estimator that a search has refitted; of any other the estimator itself."""
    found = getattr(estimator, "best_estimator_", None) if is_search(estimator) else None
    return estimator if found is None else found


def last_step(estimator: Any) -> Any:
    """The last estimator of a pipeline, however deep; of any other the estimator itself."""
    if "Pipeline" not in _lineage(estimator):
        return estimator
    step = estimator.steps[-1][1]
    return estimator if step is None or isinstance(step, str) else last_step(step)


def speaker(estimator: Any) -> Any:
    """Who knows how the training went: a pipeline's last step, the best estimator of a search."""
    last = last_step(estimator)
    found = winner(last)
    return last if found is last else speaker(found)


def losses(estimator: Any) -> Sequence[float]:
    """The training loss after each iteration; empty where the estimator keeps none."""
    lineage = _lineage(estimator)
    if "BaseMultilayerPerceptron" in lineage:
        return _sequence(estimator, "loss_curve_")
    if "BaseGradientBoosting" in lineage:
        return _sequence(estimator, "train_score_")
    if "BaseHistGradientBoosting" in lineage and estimator.scoring == "loss":
        # Scores are negative losses, and the first one is from before the first tree.
        return [-score for score in _sequence(estimator, "train_score_")[1:]]
    return ()


def curves(estimator: Any) -> dict[str, Sequence[float]]:
    """Every value by iteration, counted from 0, under the names they are logged with."""
    before_first = 1 if "BaseHistGradientBoosting" in _lineage(estimator) else 0
    found = {name.rstrip("_"): _sequence(estimator, name)[before_first:] for name in _CURVES}
    return {"epoch_loss": losses(estimator), **found}


def findings(estimator: Any) -> dict[str, float]:
    """Single numbers that the fit found without extra work."""
    found: dict[str, Any] = {name.rstrip("_"): getattr(estimator, name, None) for name in _FINDINGS}
    if is_search(estimator):
        found["best_cv_score"] = getattr(estimator, "best_score_", None)
    if hasattr(found["n_iter"], "max"):
        found["n_iter"] = found["n_iter"].max()
    return {name: float(value) for name, value in found.items() if isinstance(value, Real)}


def _lineage(estimator: Any) -> set[str]:
    """Names of the classes of scikit-learn that an estimator derives from."""
    mro = type(estimator).__mro__
    return {cls.__name__ for cls in mro if cls.__module__.startswith("sklearn.")}


def _sequence(estimator: Any, attribute: str) -> Sequence[float]:
    value: Sequence[float] | None = getattr(estimator, attribute, None)
    return () if value is None else value
