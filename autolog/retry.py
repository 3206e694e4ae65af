"""When the next attempt at a host is allowed. Pure: it never sleeps and reads no clock."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

_FIRST = 0.5
_LONGEST = 30.0
_LONGEST_ASKED = 3600.0
_DOWN_AFTER = 3


class Backoff:
    """The waits between attempts at one host; all times are in seconds.

    After a failure the next attempt waits between half and all of 0.5 s, doubled with each further
    failure up to 30 s; the chance in it keeps many senders from returning at the same moment. A
    Retry-After of the server wins, up to an hour.
    """

    def __init__(self, rng: random.Random, longest: float = _LONGEST) -> None:
        """`longest` is the most that a wait grows to, instead of 30 s."""
        self._rng, self._longest = rng, longest
        self._failures = 0
        self._next = -math.inf

    @property
    def down(self) -> bool:
        """True after three failures in a row: only one probe a wait is worth sending."""
        return self._failures >= _DOWN_AFTER

    def succeeded(self) -> None:
        """The host took a request: the next may follow at once."""
        self._failures = 0
        self._next = -math.inf

    def failed(self, after: float | None, now: float) -> None:
        """The host did not take a request.

        `after` is the wait the server asked for, if it did; `now` is a monotonic clock.
        """
        self._failures += 1
        if after is None:
            ceiling = min(self._longest, _FIRST * 2.0 ** min(self._failures - 1, 10))
            wait = self._rng.uniform(ceiling / 2, ceiling)
        else:
            # Never earlier than asked, and not all senders at that very moment.
            wait = min(max(after, 0.0), _LONGEST_ASKED) + self._rng.uniform(0.0, _FIRST)
        self._next = now + wait

    def wait(self, now: float) -> float:
        """Seconds until the next attempt is allowed; 0 means now."""
        return max(0.0, self._next - now)
