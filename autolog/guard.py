"""The shield round our own lines, and the few words we say to the user.

Only autolog's lines stand inside a shield; the user's own call stands outside, so its exceptions
pass untouched.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter, deque
from types import TracebackType
from typing import Literal

strict = False
"""True re-raises what a shield would swallow (setting ``strict``)."""

silent = False
"""True keeps every line of ours off the terminal (setting ``silent``)."""

swallowed: deque[tuple[str, Exception]] = deque(maxlen=100)
"""The newest exceptions that shields swallowed, with the place each happened at."""

failures: Counter[str] = Counter()
"""Swallowed exceptions by place, since the process started."""

_said: set[str] = set()
_lock = threading.RLock()


class shield:  # noqa: N801 - reads as a statement: with shield("place")
    """Swallow an ``Exception`` of our own lines: count it, say it once a place.

    ``BaseException`` (Ctrl-C, ``SystemExit``) passes. With `strict`, everything passes, unless the
    shield is `firm`: round lines that run in a thread of ours or inside somebody else's import.
    """

    __slots__ = ("firm", "place")

    def __init__(self, place: str, *, firm: bool = False) -> None:
        self.place, self.firm = place, firm

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception) or (strict and not self.firm):
            return False
        report(self.place, error)
        return True


def swallow(place: str, error: Exception) -> None:
    """What a `shield` does, for code on the path of every step: a ``try`` costs nothing."""
    report(place, error)
    if strict:
        raise error


def report(place: str, error: Exception) -> None:
    """Count an exception of ours that must not reach the user, and say it once a place."""
    with _lock:
        swallowed.append((place, error))
        failures[place] += 1
    say_once(
        f"swallowed:{place}",
        f"an internal error at {place} was kept from your program: "
        f"{_words(error)}. Training goes on; some of its log may be missing.",
    )


def _words(error: Exception) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001 - __str__ may be the user's code
        return name


def say(text: str) -> None:
    """Write one line to standard error, unless `silent`; whatever that is by now, no error."""
    if not silent:
        _write(f"autolog: {text}\n")


def show(text: str) -> None:
    """Have a terminal's last line hold `text` and nothing else; where there is none, do nothing."""
    with contextlib.suppress(Exception):
        if sys.stderr.isatty() and not silent:
            _write(f"\r\033[K{text}")


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except Exception:  # noqa: BLE001 - closed, None, or an object of the user's
        return


def say_once(key: str, text: str) -> Literal[True] | None:
    """`say` a line, once a process for each key; True when this call said it."""
    with _lock:
        if key in _said:
            return None
        _said.add(key)
    say(text)
    return True


def after_fork() -> None:
    """In the child: a thread that is not there any more may have held the lock."""
    global _lock
    _lock = threading.RLock()
