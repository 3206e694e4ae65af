"""MLflow's schemas of what a model is trained on, read off types and shapes; nothing is copied.

As `mlflow.types.utils` infers them, whose words these are.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from typing import Any, Final

Schema = list[dict[str, object]]
"""One entry a column, or a tensor; JSON."""

_MOST_CELLS: Final = 2_000_000
"""In a larger frame no column is looked through for missing values."""
_KINDS: Final = {"b": "boolean", "U": "string", "S": "binary", "M": "datetime"}
_INFERRED: Final = {
    "string": "string",
    "empty": "string",
    "bytes": "binary",
    "boolean": "boolean",
    "integer": "long",
    "floating": "double",
    "mixed-integer-float": "double",
    "datetime": "datetime",
    "datetime64": "datetime",
    "date": "datetime",
}


def of(data: Any) -> Schema | None:
    """The schema of a data frame, a series, an array or tensor, or a dict of arrays; else None."""
    if _is_pandas(data, "DataFrame"):
        return _of_frame(data)
    if _is_pandas(data, "Series"):
        return _of_frame(data.to_frame())
    if isinstance(data, Mapping):
        named = {str(name): _tensor(value) for name, value in data.items()}
        if not named or None in named.values():
            return None
        return [{**tensor, "name": name} for name, tensor in named.items() if tensor is not None]
    tensor = _tensor(data)
    return None if tensor is None else [tensor]


def signature(inputs: Schema | None, outputs: Schema | None) -> dict[str, str | None] | None:
    """The section of that name in MLflow's ``MLmodel``; None where the inputs are not known."""
    if not inputs:
        return None
    known = {"inputs": inputs, "outputs": outputs}
    texts = {side: None if schema is None else json.dumps(schema) for side, schema in known.items()}
    return {**texts, "params": None}


def tensor(dtype: str, shape: tuple[int | None, ...]) -> dict[str, object]:
    """The schema of a tensor; its first dimension, and every one that is None, may be any size."""
    sizes = [-1, *(-1 if size is None else int(size) for size in shape[1:])]
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": sizes}}


def _tensor(data: Any) -> dict[str, object] | None:
    dtype, shape = getattr(data, "dtype", None), getattr(data, "shape", None)
    if dtype is None or not isinstance(shape, tuple) or not shape:
        return None
    name = str(getattr(dtype, "name", dtype)).removeprefix("torch.")
    kind = getattr(dtype, "kind", "f")
    if kind in "OVT" or name == "bfloat16":
        return None
    return tensor("str" if kind == "U" else name, shape)


def _is_pandas(data: Any, kind: str) -> bool:
    pandas = sys.modules.get("pandas")
    return isinstance(data, getattr(pandas, kind, ()))


def _of_frame(frame: Any) -> Schema | None:
    is_small = frame.size <= _MOST_CELLS
    columns: Schema = []
    for at, name in enumerate(frame.columns):
        column = frame.iloc[:, at]
        kind = _kind_of(column)
        if kind is None:
            return None
        required = is_small and not bool(column.isna().any())
        columns.append({"type": kind, "name": str(name), "required": required})
    return columns


def _kind_of(column: Any) -> str | None:
    dtype = column.dtype
    kind = getattr(dtype, "kind", "O")
    if kind in "iu":
        fits = dtype.itemsize < 4 or (kind == "i" and dtype.itemsize == 4)
        return "integer" if fits else "long"
    if kind == "f":
        return "float" if dtype.itemsize <= 4 else "double"
    if kind in _KINDS:
        return _KINDS[kind]
    with contextlib.suppress(Exception):  # values of any kind, with methods of their own
        return _INFERRED.get(sys.modules["pandas"].api.types.infer_dtype(column, skipna=True))
    return None
