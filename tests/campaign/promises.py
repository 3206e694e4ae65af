"""What autolog has promised to a training: which values of its calls must be stored.

Pure: from the calls, what became of them, and what was damaged.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from autolog.journal import layout

if TYPE_CHECKING:
    from campaign.schedule import Call
    from campaign.truth import Outcome
    from campaign.world import Spot

_LARGEST = sys.float_info.max


class Value(NamedTuple):
    """One thing that a call logs."""

    run: str
    kind: str
    key: str
    step: int | None
    content: float | str


class Fate(Enum):
    """What may become of what a call logs."""

    KEPT = "kept"
    """It was promised."""
    OPEN = "in flight"
    """The process died in the call: it may be there or not."""
    DROPPED = "dropped"
    """For want of room, and counted."""
    AT_RISK = "at risk"
    """It stands behind a damaged byte, in its segment."""


class Made(NamedTuple):
    """A call that was made, and what may become of it."""

    call: Call
    fate: Fate
    values: tuple[Value, ...]


def made(
    calls: Iterable[Call], outcomes: Iterable[Outcome], spots: Collection[Spot]
) -> Iterator[Made]:
    """The calls that a process has made, the one in flight included; `spots` are its journal's."""
    steps: Counter[tuple[str, str]] = Counter()
    for call, outcome in itertools.zip_longest(calls, outcomes):
        has_journal = outcome is None or outcome.dropped >= 0
        yield Made(call, _fate(outcome, spots), tuple(_values(call, steps, has_journal)))
        if outcome is None:
            return


def _fate(outcome: Outcome | None, spots: Collection[Spot]) -> Fate:
    if outcome is None:
        return Fate.OPEN
    if outcome.dropped:
        return Fate.DROPPED
    segment, end = layout.split(outcome.tail)
    is_behind = any(segment == spot.segment and end > spot.offset for spot in spots)
    return Fate.AT_RISK if is_behind else Fate.KEPT


def _values(call: Call, steps: Counter[tuple[str, str]], has_journal: bool) -> Iterator[Value]:
    """What a call logs; `steps` counts, by run and name, those that are given none."""
    kind = {"metrics": "metric", "params": "param", "tags": "tag", "artifact": "file"}
    for key, content in call.content.items() if call.verb in kind else ():
        step = call.step
        if call.verb == "metrics" and step is None:
            step = steps[call.run, key]
            steps[call.run, key] += has_journal
        yield Value(call.run, kind[call.verb], key, step, plain(content))


def plain(content: float | str) -> float | str:
    """What MLflow makes of a value, so that equal ones are equal here."""
    if isinstance(content, str):
        return content
    if math.isnan(content):
        return "NaN"
    return max(-_LARGEST, min(_LARGEST, content))
