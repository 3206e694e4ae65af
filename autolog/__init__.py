"""Logs machine-learning training by itself.

One line, ``autolog.enable()``, and scikit-learn, Keras, PyTorch Lightning and plain PyTorch log
``epoch_loss``, their other metrics and params to MLflow, through a journal on the local disk that
costs microseconds, survives the process and reaches the server by itself.

Importing this package loads neither mlflow nor a framework; its parts load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from autolog import shadowed

if TYPE_CHECKING:
    from autolog import workspace
    from autolog.api import (
        config,
        disable,
        enable,
        end_run,
        epochs,
        flush,
        last_run,
        log_artifact,
        log_artifacts,
        log_metric,
        log_metrics,
        log_params,
        pause,
        register_model,
        run,
        set_tags,
        shutdown,
        status,
        watch,
    )
    from autolog.handle import Point, RunHandle
    from autolog.receipt import Receipt

__version__ = "0.1.0"

__all__ = [
    "Point",
    "Receipt",
    "RunHandle",
    "config",
    "disable",
    "enable",
    "end_run",
    "epochs",
    "flush",
    "last_run",
    "log_artifact",
    "log_artifacts",
    "log_metric",
    "log_metrics",
    "log_params",
    "pause",
    "register_model",
    "run",
    "set_tags",
    "shutdown",
    "status",
    "watch",
    "workspace",
]

_ELSEWHERE = {
    "Point": "autolog.handle",
    "RunHandle": "autolog.handle",
    "Receipt": "autolog.receipt",
}


def __getattr__(name: str) -> object:
    if name == "workspace":
        return importlib.import_module("autolog.workspace")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_ELSEWHERE.get(name, "autolog.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if _names := shadowed.names():
    shadowed.load_past(_names)
