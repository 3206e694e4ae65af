"""What a user's call of ``fit`` trains on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Data:
    """The arguments that hold samples; nothing is copied."""

    X: Any = None  # scikit-learn's name
    y: Any = None
    sample_weight: Any = None

    @classmethod
    def of_call(
        cls, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Data:
        """The data among the arguments of a method: the first two, whatever their names are."""
        names = [*inspect.signature(method).parameters][1:]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        first, second = [*names, "X", "y"][:2]
        return cls(
            given.get(first, given.get("X")),
            given.get(second, given.get("y")),
            given.get("sample_weight"),
        )

    @property
    def rows(self) -> int:
        """Number of samples."""
        return int(self.X.shape[0]) if hasattr(self.X, "shape") else len(self.X)

    def shapes(self) -> dict[str, str]:
        """Tags that say how much data it was."""
        found = {name: getattr(getattr(self, name), "shape", None) for name in ("X", "y")}
        text = ", ".join(f"{name} {tuple(shape)}" for name, shape in found.items() if shape)
        return {"autolog.data_shapes": text} if text else {}

    def spread(self, size: int) -> Data:
        """So many of the samples, evenly spread; itself where these are all."""
        if size >= self.rows:
            return self
        import numpy as np
        from sklearn.utils import _safe_indexing

        chosen = np.linspace(0, self.rows - 1, size).astype(int)
        values = [getattr(self, field.name) for field in fields(self)]
        return Data(*(None if v is None else _safe_indexing(v, chosen) for v in values))
