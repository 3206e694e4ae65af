"""Waiting for the shipper, always with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

from autolog.journal import progress
from autolog.journal.writer import Journal

_SHORTEST, _LONGEST = 0.01, 0.25
_SHARE = 0.05
"""Of the wait so far. A look takes 0.2 ms of processor, and many processes that wait would keep it
from the shipper, which gives way to them."""


def pause(waited: float) -> float:
    """Seconds until the next look, after so many seconds of waiting."""
    return min(max(_SHORTEST, _SHARE * waited), _LONGEST)


def until(condition: Callable[[], object], timeout: float) -> bool:
    """Wait until a condition holds; False where it does not after `timeout` seconds."""
    started = time.monotonic()
    while not condition():
        waited = time.monotonic() - started
        if waited >= timeout:
            return False
        time.sleep(min(pause(waited), timeout - waited))
    return True


def until_stored(journal: Journal, tail: int, timeout: float) -> bool:
    """Wait until the server has, or will never have, what stands before a position."""
    journal.request_flush()
    return until(lambda: progress.load(journal.folder).cursor >= tail, timeout)
