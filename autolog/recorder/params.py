"""`KnownParams`: the params of one run, and whose value of each stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class KnownParams:
    """Params as they were first logged, by hooks or by other code; what comes later is a change."""

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        """`lock` is that of the journal; see there why it is the only one."""
        self._lock = lock
        self._first: dict[str, str] = {}
        self._of_hooks: set[str] = set()
        self._of_others: set[str] = set()
        self._changed: set[str] = set()

    def as_dict(self) -> dict[str, str]:
        """The params by name."""
        with self._lock:
            return dict(self._first)

    @property
    def changed_names(self) -> list[str]:
        """The names of which more than one value was logged."""
        return sorted(self._changed)

    def know(self, params: Mapping[str, str], *, by_hooks: bool) -> None:
        """Take note of params that the run has already."""
        with self._lock:
            self._first.update(params)
            (self._of_hooks if by_hooks else self._of_others).update(params)

    def claim_for_hooks(self, params: Mapping[str, str]) -> dict[str, str]:
        """What of them is for hooks to log, and theirs from now on where it is new."""
        ours = {key: text for key, text in params.items() if key not in self._of_others}
        with self._lock:
            self._of_hooks.update(ours.keys() - self._first.keys())
        return ours

    def claim_for_others(self, params: Mapping[str, str]) -> dict[str, str]:
        """Note that other code logs them; the first values of those where that of a hook stands."""
        self._of_others.update(params)
        hooks = sorted(self._of_hooks.intersection(params))
        return {key: self._first[key] for key in hooks if self._first[key] != params[key]}

    def changed_by_others(self, params: Mapping[str, str]) -> dict[str, tuple[str, str]]:
        """First and later value of the params that other code logged with another value."""
        with self._lock:
            return {
                key: (self._first[key], text)
                for key, text in params.items()
                if self._first.get(key, text) != text and key not in self._of_hooks
            }

    def take(self, params: Mapping[str, str]) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
        """Log params: what is new, and first and later value of what has changed."""
        fresh: dict[str, str] = {}
        changed: dict[str, tuple[str, str]] = {}
        with self._lock:
            for key, text in params.items():
                if key not in self._first:
                    self._first[key] = fresh[key] = text
                elif self._first[key] != text:
                    changed[key] = self._first[key], text
            self._changed.update(changed)
        return fresh, changed
