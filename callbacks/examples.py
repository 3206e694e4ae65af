"""The first rows of training data, as MLflow stores an input example beside a model."""

from __future__ import annotations

import json
import sys
from typing import Any, Final, NamedTuple

_ROWS: Final = 5
_FILE: Final = "input_example.json"


class Example(NamedTuple):
    """An input example."""

    texts: dict[str, str]
    """Its file in the model's folder."""
    info: dict[str, object]
    """What ``MLmodel`` says of it."""


def of(data: Any) -> Example | None:
    """The first five rows of a data frame or an array; None of anything else."""
    if isinstance(data, _kind("pandas", "DataFrame")):
        content = json.loads(data.head(_ROWS).to_json(orient="split", index=False))
        return _example(content, type="dataframe", pandas_orient="split")
    if isinstance(data, _kind("numpy", "ndarray")) and data.ndim:
        return _example(data[:_ROWS].tolist(), type="ndarray")
    return None


def _kind(module: str, name: str) -> Any:
    """A class of a module that the program has loaded, else no class at all."""
    return getattr(sys.modules.get(module), name, ())


def _example(content: object, **info: object) -> Example:
    return Example({_FILE: json.dumps(content)}, {"artifact_path": _FILE, **info})
