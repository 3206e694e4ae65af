"""The first rows of training data, as MLflow stores an input example beside a model."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Mapping
from typing import Any, Final

from autolog.recorder.models import Example

_ROWS: Final = 5
_MOST_NUMBERS: Final = 200_000
"""Fewer rows are taken where these would hold more; as text that is some megabytes."""


def of(data: Any) -> Example | None:
    """The first rows, five at most, of a data frame, of an array or tensor, or a mapping of these.

    None of anything else. Fetches what is on a device.
    """
    with contextlib.suppress(Exception):  # attributes of data may be the user's code
        frame: Any = getattr(sys.modules.get("pandas"), "DataFrame", ())
        if isinstance(data, frame):
            rows = data.head(_count(data))
            text = rows.to_json(orient="split", index=False)
            return Example(text, {"type": "dataframe", "pandas_orient": "split"})
        if isinstance(data, Mapping):
            count = _count(*data.values())
            content: Any = {name: _plain(part[:count]) for name, part in data.items()}
        else:
            content = _plain(data[: _count(data)])
        return Example(json.dumps(content), {"type": "ndarray"})
    return None


def head(data: Any) -> Any:
    """A copy of the rows of an array or tensor that make its example, where they are.

    Waits for no device. None of anything else.
    """
    with contextlib.suppress(Exception):
        rows = data[: _count(data)]
        return rows.detach().clone() if hasattr(rows, "detach") else rows.copy()
    return None


def _count(*parts: Any) -> int:
    """How many rows of each to take. Raises for what has no rows, or none that are small enough."""
    numbers = sum(math.prod(part.shape[1:]) for part in parts)
    count: int = min(_ROWS, _MOST_NUMBERS // max(1, numbers), *(len(part) for part in parts))
    if not count:
        raise ValueError("no rows")
    return count


def _plain(rows: Any) -> Any:
    """Numbers, texts and truth values in lists; None for NaN. Raises for what is no array."""
    import numpy as np

    if not hasattr(type(rows), "__array__") or hasattr(rows, "iloc"):
        raise TypeError("no array")
    array: Any = np.asarray(rows.detach().cpu() if hasattr(rows, "detach") else rows)
    if array.dtype.kind == "f":
        gaps = np.isnan(array)
        array = array.astype(object)
        array[gaps] = None
    return array.tolist()
