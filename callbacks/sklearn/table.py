"""A table of results, as scikit-learn keeps it: columns by name."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any


class Table:
    """Columns of equal length; what is masked in them counts as absent."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.columns = {name: _plain(column) for name, column in columns.items()}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each row as a dict."""
        for row in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, row, strict=True))

    def as_csv(self) -> str:
        """The table with a line of names above it; what is absent is empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(zip(*self.columns.values(), strict=True))
        return text.getvalue()


def _plain(column: Any) -> list[Any]:
    """A column as Python objects, None where it is masked."""
    return list(column.tolist() if hasattr(column, "tolist") else column)
