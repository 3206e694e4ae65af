"""The work that all do: steps of ten metrics, whose values tell whether they arrived."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import NamedTuple

from peers.contenders import Stored

METRICS = 10
"""In each step."""
_KEYS = [f"m{index}" for index in range(METRICS)]
_BUFFER = bytes(512 * 1024)


def metrics(step: int) -> dict[str, float]:
    """The metrics of a step: numbers that 32 bits hold exactly, for a store that has no more."""
    return {key: step + index / 16 for index, key in enumerate(_KEYS)}


def train() -> None:
    """A step's own work: some 0.3 ms without the interpreter's lock, as tensor operations are."""
    hashlib.sha256(_BUFFER)


class Audit(NamedTuple):
    """What is stored, beside what was logged."""

    calls: int
    """That had returned."""
    lost: int
    """Of these, the calls of which a value is not stored."""
    doubled: int
    """Values that are stored more than once."""
    foreign: int
    """Stored values that nobody logged."""
    status: str
    """Of the run."""


def audit(stored: Stored, called: int, returned: int) -> Audit:
    """Compare what a reader finds with the truth.

    Args:
        stored: What the reader found.
        called: How many steps were begun, one more than `returned` where a call was cut short.
        returned: How many were logged, as far as the program was told.
    """
    counts = Counter(stored.points)
    logged = [
        [(key, step, value) for key, value in metrics(step).items()] for step in range(called)
    ]
    lost = sum(any(point not in counts for point in step) for step in logged[:returned])
    doubled = sum(count - 1 for count in counts.values())
    foreign = len(counts.keys() - {point for step in logged for point in step})
    return Audit(returned, lost, doubled, foreign, stored.status)
