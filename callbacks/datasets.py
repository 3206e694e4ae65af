"""What a training is given, logged as MLflow's datasets: what is known of it at no cost.

No pipeline is iterated, no data are copied, and nothing is fetched from a device. Where MLflow has
a description of its own for some kind of data, name, schema, profile and digest are MLflow's.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from autolog import guard, recorder
from autolog.callbacks import arrays, frames

if TYPE_CHECKING:
    from autolog.recorder import Training

TRAIN: Final = "train"
EVAL: Final = "eval"

_CONTEXT: Final = "mlflow.data.context"
_NAME: Final = "dataset"
"""What MLflow calls data that have no name."""
_LONGEST_NAME: Final = 500
_LONGEST_SCHEMA: Final = 1_000_000
_LONGEST_SOURCE: Final = 65_535


class Used(NamedTuple):
    """Data that a training uses; none where `features` is None."""

    context: str
    """`TRAIN` or `EVAL`."""
    features: Any
    targets: Any = None


class _Dataset(NamedTuple):
    name: str
    digest: str
    profile: dict[str, object]
    schema: str | None = None


def log(training: Training, find: Callable[[], Iterable[Used]]) -> None:
    """Log what a training uses, with the setting ``log_datasets``; no exception comes of it.

    `find` is called only where that is to be logged.
    """
    current = recorder.get()
    if training.silent or not current.settings.log_datasets:
        return
    with guard.shield("datasets"):
        source = json.dumps({"tags": current.run_tags()})
        if len(source) <= _LONGEST_SOURCE:
            used = [each for each in find() if each.features is not None]
            training.log_inputs([_input(each, source) for each in used])


def _input(used: Used, source: str) -> dict[str, object]:
    """An entry of MLflow's ``runs/log-inputs``."""
    found = _describe(used.features, used.targets)
    described = {
        "name": found.name[:_LONGEST_NAME],
        "digest": found.digest,
        "source_type": "code",
        "source": source,
        "profile": json.dumps(found.profile),
    }
    if found.schema is not None and len(found.schema) <= _LONGEST_SCHEMA:
        described["schema"] = found.schema
    return {"dataset": described, "tags": [{"key": _CONTEXT, "value": used.context}]}


def _describe(features: Any, targets: Any) -> _Dataset:
    """Whatever it is: of what has no description, or raises when it is read, its type and size."""
    try:
        return _described(features, targets)
    except Exception:  # noqa: BLE001 - attributes of data may be the user's code
        return _unknown(features)


def _described(features: Any, targets: Any) -> _Dataset:
    if _is_a(features, "pandas", "DataFrame"):
        frame = frames.read(features)
        return _Dataset(_NAME, frames.digest(frame), frames.profile(frame), frames.schema(frame))
    if _is_a(features, "torch.utils.data", "DataLoader"):
        return _of_loader(features)
    if _is_a(features, "torch.utils.data", "TensorDataset"):
        return _of_tensors(features.tensors)
    if hasattr(type(features), "element_spec"):
        return _of_pipeline(features)
    return _of_arrays(features, targets)


def _is_a(data: object, module: str, name: str) -> bool:
    """Whether something is of a class, which need not be loaded."""
    kind = getattr(sys.modules.get(module), name, None)
    # Not isinstance(), which asks the object as well.
    return isinstance(kind, type) and issubclass(type(data), kind)


def _of_arrays(features: Any, targets: Any) -> _Dataset:
    parts = arrays.parts_of(features), {} if targets is None else arrays.parts_of(targets)
    return _Dataset(_NAME, arrays.digest(*parts), arrays.profile(*parts), arrays.schema(*parts))


def _of_pipeline(pipeline: Any) -> _Dataset:
    """A ``tf.data.Dataset``, by what it says that its elements are."""
    spec = pipeline.element_spec
    parts = arrays.parts_of(_by_position(spec) if isinstance(spec, tuple) else spec)
    profile: dict[str, object] = {"features_cardinality": int(pipeline.cardinality())}
    schema = arrays.schema(parts, {})
    return _Dataset(_NAME, _digest(profile, schema), profile, schema)


def _by_position(items: Iterable[Any]) -> dict[str, Any]:
    """Things by their numbers, as MLflow names tensors that stand in a tuple."""
    return {
        str(number): _by_position(item) if type(item) is tuple else item
        for number, item in enumerate(items)
    }


def _of_loader(loader: Any) -> _Dataset:
    found = _describe(loader.dataset, None)
    return found._replace(profile={**found.profile, "batch_size": loader.batch_size})


def _of_tensors(tensors: tuple[Any, ...]) -> _Dataset:
    if len(tensors) == 2:
        return _of_arrays(*tensors)
    return _of_arrays(_by_position(tensors), None)


def _unknown(data: Any) -> _Dataset:
    """The class, and shape and length where asking for them costs nothing."""
    kind = type(data)
    profile: dict[str, object] = {"type": f"{kind.__module__}.{kind.__qualname__}"}
    with contextlib.suppress(Exception):
        profile["shape"] = [int(length) for length in data.shape]
    with contextlib.suppress(Exception):
        profile["num_rows"] = len(data)
    return _Dataset(_name_of(data), _digest(profile, None), profile)


def _name_of(data: Any) -> str:
    """The class of a dataset, that of the whole where it is a part of one."""
    while _is_a(data, "torch.utils.data", "Subset"):
        data = data.dataset
    kind = type(data)
    return _NAME if kind.__module__ == "builtins" else kind.__name__


def _digest(profile: Mapping[str, object], schema: str | None) -> str:
    """A hash over what is known, where values are not read."""
    return arrays.md5([json.dumps([profile, schema], sort_keys=True).encode()])
