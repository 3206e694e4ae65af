"""The account of refused and dropped values, however many reasons there are."""

from __future__ import annotations

from pathlib import Path

from autolog.journal import progress
from autolog.journal.progress import Progress
from autolog.receipt import Receipt


def test_the_account_of_refusals_stays_short(tmp_path: Path) -> None:
    """A server that says something else of each value fills no disk, and the count is right."""
    account = Progress()
    reasons = {account.reject(f"value {number} {'x' * 1000}", 2) for number in range(1000)}
    assert sum(account.rejected.values()) == 2000
    assert set(account.rejected) == reasons
    assert len(reasons) < 30
    account.store(tmp_path)
    assert (tmp_path / "progress.json").stat().st_size < 10_000
    assert progress.load(tmp_path) == account


def test_a_receipt_is_one_short_line() -> None:
    """The most frequent reasons stand in it, the others as a number."""
    refused = {f"reason {number}": number for number in range(1, 11)}
    line = str(Receipt(100, 45, 0, refused, {"bad value": 2}))
    assert line == (
        "100 logged, 45 stored, 10 refused (reason 10), 9 refused (reason 9), 8 refused (reason 8),"
        " 28 refused for other reasons, 2 dropped (bad value)"
    )
