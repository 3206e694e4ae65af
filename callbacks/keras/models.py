"""The trained model, as MLflow's flavor of Keras stores it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import keras

from autolog import guard, recorder
from autolog.callbacks import examples, schemas
from autolog.callbacks.datasets import TRAIN
from autolog.recorder.models import Budget, Model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from autolog.callbacks.datasets import Used
    from autolog.recorder import Training
    from autolog.settings import Settings

_FOLDER: Final = "data"
_PACKAGES: Final = {"tensorflow": ("tensorflow", "tensorflow-cpu")}
"""Distributions of a backend, where there is more than the one of its name."""
_OWN: Final = frozenset({"keras", "tensorflow", "tf_keras"})
_BYTES: Final = {"bool": 1, "float64": 8, "int64": 8, "uint64": 8, "float16": 2, "bfloat16": 2}
_MOST_BYTES: Final = 4
"""Of a number of any other type that weights have."""


def log(training: Training, model: Any, data: Callable[[], Iterable[Used]]) -> None:
    """Log a model trained on data; say what loading it takes where Keras cannot know that."""
    chosen = recorder.get().settings
    training.log_model(_model(model, data, chosen), chosen)
    custom = sorted({type(part).__name__ for part in _parts(model) if _is_custom(part)})
    if custom:
        given = ", ".join(f"{name!r}: {name}" for name in custom)
        guard.say_once(
            f"keras.custom:{given}",
            f"to load this model, give mlflow.keras.load_model custom_objects={{{given}}}",
        )


def _model(model: Any, data: Callable[[], Iterable[Used]], chosen: Settings) -> Model:
    flavors: dict[str, dict[str, object]] = {
        "keras": {
            "data": _FOLDER,
            "keras_version": keras.__version__,
            "keras_backend": keras.backend.backend(),
            "save_exported_model": False,
        },
        "python_function": {"loader_module": "mlflow.keras"},
    }

    def write(path: Path, budget: Budget) -> None:
        # Keras writes to a path only: what it takes is to be known before, and seen after.
        budget.expect(_size(model))
        keras.saving.save_model(model, path)
        path.chmod(0o600)
        budget.take(path.stat().st_size)

    backend = keras.backend.backend()
    packages = ("keras", "numpy", *_PACKAGES.get(backend, (backend,)))
    texts = {f"{_FOLDER}/keras_module.txt": "keras"}
    # By the shapes that the model was built with; a subclass that keeps none has none.
    inputs, outputs = _schema(_held(model, "inputs")), _schema(_held(model, "outputs"))
    signature = schemas.signature(inputs, outputs) if chosen.log_model_signatures else None
    example = examples.of(_as_inputs(data(), inputs)) if chosen.log_input_examples else None
    return Model(write, f"{_FOLDER}/model.keras", flavors, packages, texts, signature, example)


def _as_inputs(data: Iterable[Used], inputs: schemas.Schema | None) -> Any:
    """What a model was trained on, in the form that its signature asks of whoever predicts.

    None where it has another form.
    """
    features = next((used.features for used in data if used.context == TRAIN), None)
    names = [each["name"] for each in inputs or [] if "name" in each]
    if not isinstance(features, Mapping):
        return None if names else features
    if list(features) == list(range(len(features))):  # arrays in a list
        features = dict(zip(names, features.values(), strict=False))
    return features if features.keys() == set(names) or inputs is None else None


def _held(model: Any, side: str) -> Any:
    """Its symbolic tensors; some models raise where they have none."""
    try:
        return getattr(model, side, None)
    except (AttributeError, ValueError):
        return None


def _schema(tensors: Any) -> schemas.Schema | None:
    if not tensors:
        return None
    known = [schemas.tensor(str(t.dtype), tuple(t.shape)) for t in keras.tree.flatten(tensors)]
    if len(known) == 1:
        return known
    names = [t.name for t in keras.tree.flatten(tensors)]
    return [{**each, "name": name} for each, name in zip(known, names, strict=True)]


def _size(model: Any) -> int:
    """Bytes of the weights and of the optimizer's variables."""
    variables = [*model.weights, *getattr(model.optimizer, "variables", ())]
    return sum(math.prod(v.shape) * _BYTES.get(str(v.dtype), _MOST_BYTES) for v in variables)


def _parts(model: Any) -> Iterable[Any]:
    yield model
    yield from model._flatten_layers(include_self=False)  # noqa: SLF001 - nested ones too


def _is_custom(part: Any) -> bool:
    kind = type(part)
    return kind.__module__.partition(".")[0] not in _OWN
