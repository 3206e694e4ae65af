"""What MLflow would refuse at once, by its own checks, and its entities as plain values."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Sequence
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.utils import validation
from mlflow.utils.proto_json_utils import message_to_json

from autolog.recorder.run import Point
from autolog.records import Link


def checked(
    metrics: Sequence[Any], params: Sequence[Any], tags: Sequence[Any]
) -> tuple[list[Point], dict[str, str], dict[str, str]]:
    """The content of a ``log_batch`` that every store takes.

    Raises ``MlflowException`` as the stores do, or `TypeError` for a step that is no whole number.
    """
    validation._validate_batch_log_limits(metrics, params, tags)  # noqa: SLF001 - no public ones
    points = None if params or tags else _usual_points(metrics)
    if points is not None:
        return points, {}, {}
    validation._validate_param_keys_unique(params)  # noqa: SLF001
    metrics, params, tags = validation._validate_batch_log_data(metrics, params, tags)  # noqa: SLF001
    points = list(map(_point, metrics))
    if len(_good_names) < _MOST_NAMES:
        _good_names.update(point.key for point in points)
    return points, _pairs(params), _pairs(tags)


_good_names: set[str] = set()
"""Names of metrics that MLflow's checks have passed, which take longer than all the rest."""
_MOST_NAMES = 10_000


def _usual_points(metrics: Sequence[Any]) -> list[Point] | None:
    """Metrics of the usual types with names that are known; None where MLflow has to look."""
    points = []
    for metric in metrics:
        key, value, step, timestamp = metric.key, metric.value, metric.step, metric.timestamp
        if not (
            type(value) is float
            and type(step) is type(timestamp) is int
            and -(1 << 63) <= step < 1 << 63
            and 0 <= timestamp < 1 << 63
            and key in _good_names
        ):
            return None
        points.append(Point(key, value, timestamp, step, _link(metric)))
    return points


def _point(metric: Any) -> Point:
    step, timestamp = operator.index(metric.step), operator.index(metric.timestamp)
    if not (-(1 << 63) <= step < 1 << 63 and timestamp < 1 << 63):
        raise TypeError(f"step {step} or timestamp {timestamp} is beyond 64 bits")
    return Point(metric.key, float(metric.value), timestamp, step, _link(metric))


def _link(metric: Any) -> Link | None:
    model = getattr(metric, "model_id", None)  # MLflow 2 has none of these
    name = getattr(metric, "dataset_name", None)
    digest = getattr(metric, "dataset_digest", None)
    return Link(model, name, digest) if model or name or digest else None


def refuse(name: str, *arguments: Any) -> None:
    """Raise what the method of a store that takes one thing says to it, if it has an objection."""
    if name == "log_metric":
        (metric,) = arguments
        validation._validate_metric(metric.key, metric.value, metric.timestamp, metric.step)  # noqa: SLF001
    elif name == "log_param":
        (param,) = arguments
        validation._validate_param(param.key, param.value)  # noqa: SLF001
    elif name == "set_tag":
        (tag,) = arguments
        validation._validate_tag(tag.key, tag.value)  # noqa: SLF001


def changed_param(run_id: str, key: str, first: str, later: str) -> MlflowException:
    """What the stores say to another value of a param."""
    return MlflowException(
        f"Changing param values is not allowed. Param with key='{key}' was already logged with "
        f"value='{first}' for run ID='{run_id}'. Attempted logging new value '{later}'.",
        INVALID_PARAMETER_VALUE,
    )


def _pairs(items: Iterable[Any]) -> dict[str, str]:
    return {item.key: str(item.value) for item in items}


def inputs(datasets: Sequence[Any] | None, models: Sequence[Any] | None) -> str | None:
    """The content of an `Inputs` record; None for what every store refuses."""
    both = (("datasets", datasets), ("models", models))
    try:
        given = {kind: [item.to_proto() for item in items or ()] for kind, items in both}
    except (AttributeError, TypeError):
        return None
    return json.dumps(
        {
            kind: [json.loads(message_to_json(m)) for m in messages]
            for kind, messages in given.items()
        }
    )
