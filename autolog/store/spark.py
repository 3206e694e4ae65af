"""MLflow asks for the Spark session at every call of its fluent functions, and imports pyspark to.

Where pyspark is not installed, that import searches all of ``sys.path`` in vain each time, which
takes longer than all else that ``mlflow.log_metrics`` does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from mlflow.tracking._model_registry import utils

from autolog import hooks

_NAME = "_get_active_spark_session"


def install() -> None:
    """Have MLflow look for a session only where there can be one."""
    if hasattr(utils, _NAME):
        hooks.wrap(utils, _NAME, _where_imported)


def remove() -> None:
    """Have it look again."""
    if hasattr(utils, _NAME):
        hooks.unwrap(utils, _NAME)


def _where_imported(original: Callable[[], Any]) -> Callable[[], Any]:
    def _get_active_spark_session() -> Any:
        return original() if "pyspark" in sys.modules else None

    return _get_active_spark_session
