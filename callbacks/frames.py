"""Frames of pandas as MLflow's ``mlflow.data.from_pandas`` describes them: schema, profile, digest.

MLflow reads the first 10,000 rows for the digest, and every cell for the schema. Here both come of
those rows, and of fewer where a frame is wide: at most 300,000 numbers, of which a text counts for
ten, in 1,000 columns are read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import compress
from typing import Any, Final, NamedTuple

from autolog.callbacks.arrays import int64, md5

_MOST_ROWS: Final = 10_000
_MOST_COLUMNS: Final = 1_000
_MOST_CELLS: Final = 300_000
_OBJECT: Final = 10
"""So many cells of numbers take the time of one that holds an object."""

_TYPES: Final = {
    "b1": "boolean",
    **dict.fromkeys(("i1", "i2", "i4", "u1", "u2"), "integer"),
    **dict.fromkeys(("i8", "u4"), "long"),
    **dict.fromkeys(("f2", "f4"), "float"),
    "f8": "double",
    "M8": "datetime",
}
"""MLflow's types by kind and width of numpy's."""

_TYPES_OF_OBJECTS: Final[dict[type, str]] = {
    bool: "boolean",
    int: "long",
    float: "double",
    str: "string",
    bytes: "binary",
    bytearray: "binary",
}


class Frame(NamedTuple):
    """A frame as far as it is read."""

    whole: Any
    head: Any
    """Its first rows and columns."""
    objects: dict[int, set[type]]
    """By position in the head, the types of what a column of objects holds, if not missing."""
    has_gaps: list[bool]
    """By position in the head, whether a value is missing."""


def read(frame: Any) -> Frame:
    """Look at the first cells of a frame."""
    head = frame.iloc[:, :_MOST_COLUMNS]
    found = [position for position, dtype in enumerate(head.dtypes) if dtype.kind == "O"]
    width = head.shape[1] + (_OBJECT - 1) * len(found)
    head = head.iloc[: min(_MOST_ROWS, _MOST_CELLS // max(1, width))]
    missing = head.isna().to_numpy()
    objects = {
        position: set(map(type, compress(head.iloc[:, position].tolist(), ~missing[:, position])))
        for position in found
    }
    return Frame(frame, head, objects, missing.any(axis=0).tolist())


def profile(frame: Frame) -> dict[str, object]:
    """Numbers of rows and cells."""
    return {"num_rows": len(frame.whole), "num_elements": int(frame.whole.size)}


def schema(frame: Frame) -> str | None:
    """The `columns` as MLflow writes them."""
    known = columns(frame)
    return None if known is None else json.dumps({"mlflow_colspec": known}, default=str)


def columns(frame: Frame) -> list[dict[str, object]] | None:
    """Names and types of the columns; None where MLflow has no type for one, or there are too many.

    A column is required where no value is missing.
    """
    head = frame.head
    if head.shape[1] < frame.whole.shape[1]:
        return None
    types = list(_types(frame))
    if None in types or not head.columns.is_unique:
        return None
    return [
        {"type": kind, "name": name, "required": not has_gaps}
        for kind, name, has_gaps in zip(types, head.columns.tolist(), frame.has_gaps, strict=True)
    ]


def _types(frame: Frame) -> Iterator[str | None]:
    for position, dtype in enumerate(frame.head.dtypes):
        if position in frame.objects:
            types = frame.objects[position]
            yield _TYPES_OF_OBJECTS.get(next(iter(types))) if len(types) == 1 else None
        else:
            yield _TYPES.get(f"{dtype.kind}{dtype.itemsize}")


def digest(frame: Frame) -> str:
    """A hash over the first rows of the columns of numbers and of texts, and all columns' names."""
    pandas, head = sys.modules["pandas"], frame.head
    is_text = [
        frame.objects.get(position) == {str} and not has_gaps
        for position, has_gaps in enumerate(frame.has_gaps)
    ]
    # Names of several types have no order, of which pandas would warn.
    sort = None if len(set(map(type, head.columns))) == 1 else False
    numbers = head.select_dtypes(include="number").columns
    read = head.columns[is_text].union(numbers, sort=sort)
    return md5(
        [
            pandas.util.hash_pandas_object(head[read]).to_numpy(),
            int64(len(frame.whole)),
            *(str(name).encode() for name in frame.whole.columns),
        ]
    )
