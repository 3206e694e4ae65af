"""Waiting for the shipper, always with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

from autolog.journal import progress
from autolog.journal.writer import Journal

_POLL = 0.01


def until(condition: Callable[[], object], timeout: float) -> bool:
    """Wait until a condition holds; False where it does not after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL)
    return True


def until_stored(journal: Journal, tail: int, timeout: float) -> bool:
    """Wait until the server has, or will never have, what stands before a position."""
    journal.request_flush()
    return until(lambda: progress.load(journal.folder).cursor >= tail, timeout)
