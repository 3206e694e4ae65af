"""How long the wait between attempts is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolog.retry import Backoff


@pytest.fixture
def backoff() -> Backoff:
    """A back-off with a known source of chance."""
    return Backoff(random.Random(1))


def test_the_first_attempt_is_allowed_at_once(backoff: Backoff) -> None:
    """Nothing waits before something failed."""
    assert backoff.wait(now=100.0) == 0.0
    assert not backoff.down


@given(st.integers(0, 2**32), st.integers(1, 5000))
def test_waits_double_up_to_half_a_minute(seed: int, failures: int) -> None:
    """After n failures the wait is between half and all of 0.5 s x 2^(n-1), 30 s at most."""
    backoff = Backoff(random.Random(seed))
    for _ in range(failures):
        backoff.failed(None, now=100.0)
    ceiling = min(30.0, 0.5 * 2 ** min(failures - 1, 10))
    assert ceiling / 2 <= backoff.wait(now=100.0) <= ceiling


def test_senders_do_not_return_together() -> None:
    """Two senders that failed at the same moment wait for different times."""
    waits = set()
    for seed in range(10):
        backoff = Backoff(random.Random(seed))
        backoff.failed(None, now=0.0)
        waits.add(backoff.wait(now=0.0))
    assert len(waits) == 10


def test_the_wait_runs_out(backoff: Backoff) -> None:
    """The wait shrinks with the clock and is never negative."""
    backoff.failed(None, now=100.0)
    whole = backoff.wait(now=100.0)
    assert backoff.wait(now=100.1) == pytest.approx(whole - 0.1)
    assert backoff.wait(now=200.0) == 0.0


@pytest.mark.parametrize(
    ("asked", "least"), [(7.0, 7.0), (0.0, 0.0), (86_400.0, 3600.0), (-5.0, 0.0)]
)
def test_the_servers_wish_wins(backoff: Backoff, asked: float, least: float) -> None:
    """A Retry-After is kept to, up to an hour, and exceeded by half a second at most."""
    for _ in range(6):
        backoff.failed(None, now=0.0)
    backoff.failed(asked, now=100.0)
    assert least <= backoff.wait(now=100.0) <= least + 0.5


def test_three_failures_in_a_row_open_the_breaker(backoff: Backoff) -> None:
    """A host is down after three failures in a row, and up again with its first success."""
    for expected in (False, False, True, True):
        backoff.failed(None, now=0.0)
        assert backoff.down is expected
    backoff.succeeded()
    assert not backoff.down
    assert backoff.wait(now=0.0) == 0.0


def test_a_success_starts_the_waits_anew(backoff: Backoff) -> None:
    """After a success the next failure waits as the first one did."""
    for _ in range(9):
        backoff.failed(None, now=0.0)
    backoff.succeeded()
    backoff.failed(None, now=0.0)
    assert backoff.wait(now=0.0) <= 0.5
