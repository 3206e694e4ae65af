"""How often a process that waits for the shipper looks."""

from __future__ import annotations

from itertools import pairwise

from autolog.waiting import pause


def _looks(wait: float) -> list[float]:
    """When a wait of so many seconds looks, the time that it sees what it waited for included."""
    times = [0.0]
    while times[-1] < wait:
        times.append(times[-1] + pause(times[-1]))
    return times


def test_what_is_waited_for_is_seen_soon() -> None:
    """From a look to the next are 10 ms, or a twentieth of the wait so far where that is more."""
    for look, following in pairwise(_looks(60.0)):
        assert following - look < max(0.011, 0.051 * look)


def test_a_long_wait_looks_seldom() -> None:
    """Ten seconds have no more than 120 looks, so that 64 processes leave the sender its time."""
    assert len(_looks(10.0)) <= 120
