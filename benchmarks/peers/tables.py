"""How results are written: durations, spreads and tables of Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Rows = list[dict[str, Any]]
"""What a measurement gives: a row for each contender, case and round."""

Results = dict[str, Rows]
"""The rows of all measurements, by their names."""

_UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))


def duration(nanoseconds: float) -> str:
    """Three digits and a unit."""
    size, unit = next((each for each in _UNITS if nanoseconds >= each[0]), _UNITS[-1])
    return f"{nanoseconds / size:.3g} {unit}"


def spread(values: Sequence[float], shown: Callable[[float], str]) -> str:
    """The median of the rounds, and how far they lie apart."""
    median, low, high = (shown(each) for each in (statistics.median(values), *extent(values)))
    return median if low == high else f"{median} ({low} to {high})"


def extent(values: Sequence[float]) -> tuple[float, float]:
    """The least and the greatest."""
    return min(values), max(values)


def grouped(rows: Rows, *keys: str) -> dict[Any, Rows]:
    """Rows that agree in these keys, in the order in which they came first."""
    groups: dict[Any, Rows] = {}
    for row in rows:
        group = row[keys[0]] if len(keys) == 1 else tuple(row[key] for key in keys)
        groups.setdefault(group, []).append(row)
    return groups


def median(rows: Rows, key: str) -> float:
    """Of the rounds."""
    return float(statistics.median(row[key] for row in rows))


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """As Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))
