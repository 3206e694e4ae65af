"""The account of refused and dropped values, however many reasons there are."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from journals import lay_out, losses, run_start

from autolog.delivery import Delivery
from autolog.exporters import exporter_for
from autolog.feed import Feed, read_meta
from autolog.journal import progress
from autolog.journal.owner import Life
from autolog.journal.progress import Progress
from autolog.receipt import Receipt
from autolog.records import encode

if TYPE_CHECKING:
    from support import MlflowServer


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


def test_a_delivery_that_is_cut_short_counts_once(
    mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """What a killed shipper had sent, and its successor sends again, is stored and counted once."""
    folder, exporter = tmp_path / "j", exporter_for(mlflow_server.url, {})
    starts = [encode(run_start(run, key=uuid.uuid4().hex)) for run in (1, 2)]
    lay_out(folder, [[starts[0], *losses(5)[1:], starts[1], *losses(5, run=2)[1:]]])
    meta = read_meta(folder)
    assert meta is not None
    killed = Feed(folder, meta)
    delivery = Delivery(killed, killed.read(Life.DEAD), exporter)
    while len(killed.progress.run_ids) < 2:
        delivery.advance()
    assert len(mlflow_server.points(next(iter(killed.progress.run_ids.values())))) == 5

    successor = Feed(folder, meta)
    while entries := successor.read(Life.DEAD):
        delivery = Delivery(successor, entries, exporter)
        while not delivery.is_done:
            delivery.advance()
        successor.commit(delivery.position)
    assert progress.load(folder).acknowledged == 10
