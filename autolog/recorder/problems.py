"""`Problems`: what of one call cannot be logged."""

from __future__ import annotations

from collections.abc import Callable

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
