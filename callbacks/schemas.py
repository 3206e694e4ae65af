"""Schemas of what a model takes and gives, for MLflow's ``MLmodel``."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any, Final

from autolog.callbacks import arrays, frames

Schema = list[dict[str, object]]
"""One entry a column, or a tensor; JSON."""

_UNKNOWN: Final = ("object", "bfloat16", "float8")
"""Types, or what their names begin with, that a schema of MLflow's cannot hold."""


def of(data: Any) -> Schema | None:
    """The schema of a data frame, an array or tensor, or a mapping of these; None of all else."""
    with contextlib.suppress(Exception):  # attributes of data may be the user's code
        if isinstance(data, getattr(sys.modules.get("pandas"), "DataFrame", ())):
            return frames.columns(frames.read(data))
        parts = arrays.parts_of(data)
        if not any(str(part.dtype).startswith(_UNKNOWN) for part in parts.values()):
            return arrays.specs(parts)
    return None


def signature(inputs: Schema | None, outputs: Schema | None) -> dict[str, str | None] | None:
    """The section of that name in ``MLmodel``; None where the inputs are not known."""
    if not inputs:
        return None
    known = {"inputs": inputs, "outputs": outputs}
    texts = {
        side: None if schema is None else json.dumps(schema, default=str)
        for side, schema in known.items()
    }
    return {**texts, "params": None}


def tensor(dtype: str, shape: tuple[int | None, ...]) -> dict[str, object]:
    """The schema of a tensor; its first dimension, and every one that is None, may be any size."""
    sizes = (1, *(-1 if size is None else int(size) for size in shape[1:]))
    return arrays.spec(None, arrays.Part(sizes, dtype))
