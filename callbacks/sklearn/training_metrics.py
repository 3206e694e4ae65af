"""Option ``training_metrics``: the fitted estimator against the data it was trained on.

Names and meanings are those of MLflow's autologging. The predictions take as long as the fit at
most, or a second where that is more: what is too much for that is sampled, evenly.
"""

from __future__ import annotations

import contextlib
import inspect
import random
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from autolog.callbacks.sklearn import figures
from autolog.callbacks.sklearn.data import Data

if TYPE_CHECKING:
    from autolog.recorder import Training

_LEAST_SECONDS = 1.0
_FIRST_ROWS = 100
_PASSES = 3
"""Predictions, probabilities and the estimator's own score, each about as long as the first."""
_SHORTEST = 1e-6
"""Seconds that a prediction takes at least, whatever the clock says."""

_HTML = """<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="UTF-8"/>
  </head>
  <body>
    {}
  </body>
</html>
"""


@dataclass(frozen=True)
class _Predicted:
    """Samples, and what the estimator says about them."""

    data: Data
    labels: Any
    classes: Any = None
    """Of a classifier with one target."""
    probabilities: Any = None
    """One column a class; None where the estimator gives none."""
    ranks: Any = None
    """Of two classes: the higher, the more likely is the second."""


def log(training: Training, estimator: Any, data: Data, fit_seconds: float) -> None:
    """Log what MLflow calls training metrics, images of them, and the estimator as HTML."""
    with _undisturbed():
        with contextlib.suppress(AttributeError):  # it does not derive from BaseEstimator
            training.log_text(_HTML.format(_as_html(estimator)), "estimator.html")
        if data.y is None or not _can_be_measured(estimator):
            return
        predicted = _predict(estimator, data, max(fit_seconds, _LEAST_SECONDS))
        if predicted.data is not data:
            text = f"{predicted.data.rows} of {data.rows}"
            training.set_tags({"autolog.training_metrics_rows": text})
        values = _metrics(estimator, predicted)
        values = {f"training_{name}": value for name, value in values.items()}
        training.log_metrics(values, training.first_epoch)
        for path, image in _images(predicted):
            training.log_bytes(image, path)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """The program's warnings and random numbers stay what they are, whatever a prediction does."""
    import numpy as np

    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - estimators use that one
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _as_html(estimator: Any) -> str:
    from sklearn.utils import estimator_html_repr

    return str(estimator_html_repr(estimator))


def _can_be_measured(estimator: Any) -> bool:
    has_metrics = _kind(estimator) is not None or hasattr(estimator, "score")
    return has_metrics and hasattr(estimator, "predict")


def _kind(estimator: Any) -> Literal["classifier", "regressor"] | None:
    from sklearn.base import is_classifier, is_regressor

    with contextlib.suppress(AttributeError):  # it does not derive from BaseEstimator
        if is_classifier(estimator):
            return "classifier"
        if is_regressor(estimator):
            return "regressor"
    return None


# -- predictions -----------------------------------------------------------------------------------


def _predict(estimator: Any, data: Data, seconds: float) -> _Predicted:
    part, labels = _affordable(estimator, data, seconds)
    if _kind(estimator) != "classifier":
        return _Predicted(part, labels)
    classes = _classes(estimator, part.y)
    probabilities = ranks = None
    is_binary = classes is not None and len(classes) == 2
    if hasattr(estimator, "predict_proba"):
        probabilities = estimator.predict_proba(part.X)
        ranks = probabilities[:, 1] if is_binary else None
    elif is_binary and hasattr(estimator, "decision_function"):
        ranks = estimator.decision_function(part.X)
    return _Predicted(part, labels, classes, probabilities, ranks)


def _classes(estimator: Any, y: Any) -> Any:
    from sklearn.utils.multiclass import type_of_target, unique_labels

    if type_of_target(y) not in ("binary", "multiclass"):
        return None
    classes = getattr(estimator, "classes_", None)
    return unique_labels(y) if classes is None else classes


def _affordable(
    estimator: Any, data: Data, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> tuple[Data, Any]:
    """As much of the data as there is time for, and its predictions.

    By growing samples: the time for few rows says little about that for many.
    """
    size, spent = min(_FIRST_ROWS, data.rows), 0.0
    while True:
        part = data.spread(size)
        started = clock()
        labels = estimator.predict(part.X)
        took = clock() - started
        spent += took
        affordable = int(size * (seconds - spent) / (max(took, _SHORTEST) * _PASSES))
        larger = min(data.rows, size * 10, affordable)
        if larger < min(data.rows, size * 2) or larger == size:
            return part, labels
        size = larger


# -- metrics ---------------------------------------------------------------------------------------


def _metrics(estimator: Any, predicted: _Predicted) -> dict[str, float]:
    makers: dict[str, Callable[[], float]] = {}
    kind = _kind(estimator)
    if kind == "classifier":
        makers = _of_classifier(predicted)
    elif kind == "regressor":
        makers = _of_regressor(predicted)
    values: dict[str, float] = {}
    for name, make in makers.items():
        with contextlib.suppress(ValueError, TypeError):  # not defined for targets of this kind
            values[name] = float(make())
    if hasattr(estimator, "score"):
        with contextlib.suppress(ValueError, TypeError):
            values["score"] = _score(estimator, predicted.data, values)
    return values


def _of_classifier(predicted: _Predicted) -> dict[str, Callable[[], float]]:
    from sklearn import metrics

    y, weight = predicted.data.y, predicted.data.sample_weight
    labels, probabilities = predicted.labels, predicted.probabilities
    averaged = {"average": "weighted", "sample_weight": weight}
    found = {
        "precision_score": lambda: metrics.precision_score(y, labels, **averaged),
        "recall_score": lambda: metrics.recall_score(y, labels, **averaged),
        "f1_score": lambda: metrics.f1_score(y, labels, **averaged),
        "accuracy_score": lambda: metrics.accuracy_score(y, labels, sample_weight=weight),
    }
    if probabilities is None:
        return found
    of_all = {"sample_weight": weight, "labels": predicted.classes}
    ranked = probabilities if predicted.ranks is None else predicted.ranks
    return found | {
        "log_loss": lambda: metrics.log_loss(y, probabilities, **of_all),
        "roc_auc": lambda: metrics.roc_auc_score(
            y, ranked, average="weighted", multi_class="ovo", **of_all
        ),
    }


def _of_regressor(predicted: _Predicted) -> dict[str, Callable[[], float]]:
    from sklearn import metrics

    y, given = predicted.data.y, {"sample_weight": predicted.data.sample_weight}
    guess = predicted.labels
    return {
        "mean_squared_error": lambda: metrics.mean_squared_error(y, guess, **given),
        "root_mean_squared_error": lambda: metrics.mean_squared_error(y, guess, **given) ** 0.5,
        "mean_absolute_error": lambda: metrics.mean_absolute_error(y, guess, **given),
        "r2_score": lambda: metrics.r2_score(y, guess, **given),
    }


def _score(estimator: Any, data: Data, known: dict[str, float]) -> float:
    """What the estimator's own ``score`` says; not computed again where that is known."""
    method = getattr(estimator.score, "__qualname__", "")
    same = {"ClassifierMixin.score": "accuracy_score", "RegressorMixin.score": "r2_score"}
    if same.get(method) in known:
        return known[same[method]]
    takes_weights = "sample_weight" in inspect.signature(estimator.score).parameters
    if data.sample_weight is None or not takes_weights:
        return float(estimator.score(data.X, data.y))
    return float(estimator.score(data.X, data.y, sample_weight=data.sample_weight))


# -- images ----------------------------------------------------------------------------------------


def _images(predicted: _Predicted) -> Iterator[tuple[str, bytes]]:
    if predicted.classes is None or not figures.can_draw():
        return
    makers = {"training_confusion_matrix.png": _confusion_matrix}
    if predicted.ranks is not None:
        makers["training_roc_curve.png"] = _roc_curve
        makers["training_precision_recall_curve.png"] = _precision_recall
    for path, make in makers.items():
        with contextlib.suppress(ValueError, TypeError):  # as with the metrics
            yield path, make(predicted)


def _confusion_matrix(predicted: _Predicted) -> bytes:
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(
        predicted.data.y,
        predicted.labels,
        labels=predicted.classes,
        normalize="true",
        sample_weight=predicted.data.sample_weight,
    )
    return figures.confusion_matrix(matrix, predicted.classes)


def _roc_curve(predicted: _Predicted) -> bytes:
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(predicted.data.y, predicted.ranks, **_of_second(predicted))
    return figures.roc_curve(false, true)


def _precision_recall(predicted: _Predicted) -> bytes:
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(
        predicted.data.y, predicted.ranks, **_of_second(predicted)
    )
    return figures.precision_recall(recall, precision)


def _of_second(predicted: _Predicted) -> dict[str, Any]:
    return {
        "pos_label": predicted.classes[1],
        "sample_weight": predicted.data.sample_weight,
    }
