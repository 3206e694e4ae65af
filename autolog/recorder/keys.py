"""`KeyTable`: the names of metrics, interned once in a journal, so that a step is only numbers."""

from __future__ import annotations

from typing import Any

from autolog import records
from autolog.journal import layout
from autolog.journal.writer import Journal
from autolog.records import Link

_MOST_TUPLES = 1024


class KeyTuple:
    """The names of one kind of step."""

    __slots__ = ("last_step", "number", "pack", "size")

    def __init__(self, number: int, size: int) -> None:
        self.number, self.size = number, size
        self.pack = records.metrics_packer(size)
        self.last_step: Any = -1


class KeyTable:
    """The tuples of names that one run has logged."""

    def __init__(self, journal: Journal, run_key: str) -> None:
        self._journal, self._run_key = journal, run_key
        self._known: dict[tuple[tuple[str, ...], tuple[Link | None, ...]], KeyTuple] = {}
        self._is_closed = False

    def intern(
        self, keys: tuple[str, ...], links: tuple[Link | None, ...] = ()
    ) -> tuple[KeyTuple, bytes]:
        """The number of a tuple of names, and what must stand before each use of it.

        Past `_MOST_TUPLES`, and once closed, a tuple is declared anew with each use, so that
        neither memory nor the start of a segment grows without end.
        """
        with self._journal.lock:
            known = self._known.get((keys, links))
            if known is not None:
                return known, b""
            known = KeyTuple(next(self._journal.ids), len(keys))
            declaration = layout.frame(records.encode_keys(known.number, keys, links))
            if self._is_closed or len(self._known) >= _MOST_TUPLES:
                return known, declaration
            self._journal.declare((self._run_key, keys, links), declaration)
            self._known[keys, links] = known
            return known, b""

    def known(self, keys: tuple[str, ...]) -> KeyTuple | None:
        """The number of a tuple of names without links, if later uses can rely on it."""
        return self._known.get((keys, ()))

    def last_step(self, key: str) -> int:
        """The newest step of a name; -1 before the first."""
        return max((t.last_step for (keys, _), t in self._known.items() if key in keys), default=-1)

    def close(self) -> None:
        """Repeat the names at the start of later segments no more."""
        with self._journal.lock:
            self._is_closed = True
            for keys, links in self._known:
                self._journal.forget((self._run_key, keys, links))
            self._known.clear()
