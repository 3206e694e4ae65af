"""The fitted estimator, as MLflow's flavor of scikit-learn stores it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from autolog import recorder
from autolog.callbacks import examples, schemas
from autolog.callbacks.sklearn import estimators, neighbours
from autolog.recorder.models import Budget, Model

if TYPE_CHECKING:
    from autolog.callbacks.sklearn.data import Data
    from autolog.recorder import Training
    from autolog.settings import Settings

_FILE: Final = "model.pkl"
_PACKAGES: Final = ("cloudpickle", "numpy", "scikit-learn", "scipy")


def log(training: Training, estimator: Any, data: Data) -> None:
    """Log a fitted estimator, and the best one that a search has fitted again."""
    if training.run is None or neighbours.logs_models(training.run, estimator):
        return
    chosen = recorder.get().settings
    inputs = schemas.of(data.X) if chosen.log_model_signatures else None
    training.log_model(_model(estimator, data, chosen, inputs), chosen)
    best = getattr(estimators.last_step(estimator), "best_estimator_", None)
    if best is not None:
        training.log_model(_model(best, data, chosen, inputs), chosen, "best_estimator")


def _model(estimator: Any, data: Data, chosen: Settings, inputs: schemas.Schema | None) -> Model:
    def write(path: Path, budget: Budget) -> None:
        import cloudpickle

        with budget.open(path) as file:
            cloudpickle.dump(estimator, file)

    return Model(
        write,
        _FILE,
        _flavors(estimator),
        (*_PACKAGES, "pandas") if hasattr(data.X, "columns") else _PACKAGES,
        signature=_signature(estimator, data, inputs),
        example=examples.of(data.X) if chosen.log_input_examples else None,
    )


def _flavors(estimator: Any) -> dict[str, dict[str, object]]:
    import sklearn

    own = {
        "pickled_model": _FILE,
        "sklearn_version": sklearn.__version__,
        "serialization_format": "cloudpickle",
        "code": None,
    }
    if not hasattr(estimator, "predict"):
        return {"sklearn": own}
    served = {"loader_module": "mlflow.sklearn", "model_path": _FILE, "predict_fn": "predict"}
    return {"python_function": served, "sklearn": own}


def _signature(
    estimator: Any, data: Data, inputs: schemas.Schema | None
) -> dict[str, str | None] | None:
    """By the data it was fitted to; what it predicts is of the type of its targets."""
    dtype = getattr(getattr(estimator, "classes_", data.y), "dtype", None)
    shape = getattr(data.y, "shape", (None,))
    outputs = None if dtype is None else [schemas.tensor(_predicted(dtype), shape)]
    return schemas.signature(inputs, outputs)


def _predicted(dtype: Any) -> str:
    """Labels are predicted as they are, and text is an object there; the rest is a number."""
    return "object" if dtype.kind in "OU" else str(dtype)
