"""`Problems`: what of one call cannot be logged; and what can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autolog import guard, values


class Problems:
    """What of one call cannot be logged; it speaks up when all that can be is logged.

    Counted, and said once for each reason and name; raised with `strict` where the user's own code
    made the call.
    """

    def __init__(self, drop: Callable[[str, int], None], *, by_user: bool) -> None:
        self._drop, self._may_raise = drop, by_user and guard.strict
        self._found: list[tuple[str, values.BadValue]] = []

    def add(self, reason: str, error: values.BadValue, *, count: int = 1, about: str = "") -> None:
        """Note one problem that costs so many values."""
        self._drop(reason, count)
        self._found.append((f"{reason}:{about}", error))

    def settle(self) -> None:
        """Raise the first problem, or say each."""
        for key, error in self._found:
            if self._may_raise:
                raise error
            guard.say_once(key, f"not logged: {error}")


def good_numbers(
    metrics: Mapping[str, Any], step: object, problems: Problems
) -> tuple[dict[str, float], int | None]:
    """The values and the step that can be logged; no values where the step is bad."""
    good: dict[str, float] = {}
    try:
        given = values.pairs("metric", metrics)
    except values.BadValue as error:
        problems.add("bad value", error)
        return good, None
    try:
        whole = None if step is None else values.step(step)
    except values.BadValue as error:
        problems.add("bad step", error, count=len(given))
        return good, None
    for key, value in given:
        try:
            name = values.name("metric", key)
        except values.BadValue as error:
            problems.add("bad name", error)
            continue
        try:
            good[name] = values.number(name, value)
        except values.BadValue as error:
            problems.add("bad value", error, about=name)
    return good, whole


def good_texts(kind: str, items: Mapping[str, object], problems: Problems) -> dict[str, str]:
    """What of a mapping has a name that can be logged, as text."""
    good: dict[str, str] = {}
    try:
        given = values.pairs(kind, items)
    except values.BadValue as error:
        problems.add("bad value", error)
        return good
    for key, value in given:
        try:
            good[values.name(kind, key)] = values.plain_text(value)
        except values.BadValue as error:
            problems.add("bad name", error)
    return good
