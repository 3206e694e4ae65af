"""What becomes of the way to the store as one process brings more and more into it."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from peers.contenders import contenders
from peers.growth import LAST, on_disk
from peers.harness import Bench, Meter, Process, User, user
from peers.tables import Results, Rows, duration, table
from peers.work import METRICS

if TYPE_CHECKING:
    from figures import Figure
    from matplotlib.axes import Axes

TITLE = "As autolog fills the store"
_SHORTEST, _SHARE = 0.25, 0.05
"""Seconds between two looks into the store, and of the time so far: a look takes time itself."""
_LONGEST = 600
"""Seconds after which it is given up."""


class Size(NamedTuple):
    """How much is measured."""

    points: tuple[int, ...]
    """Values that have been logged; from one to the next in one go."""


FULL = Size(points=(10_000, 100_000, 1_000_000))
QUICK = Size(points=(1000, 2000))


def measure(bench: Bench) -> Rows:
    """A row for each point, by one process; `call` is in nanoseconds, sizes are in MB."""
    size = QUICK if bench.quick else FULL
    with user(contenders()["autolog"]) as person:
        process = person.start(person.place(bench.server), size.points[-1] // METRICS, trains=False)
        process.linger()
        process.allow(0)
        assert process.wait_until(lambda tally: tally.ready, 120)
        return [_filled(bench, person, process, values) for values in size.points]


def _filled(bench: Bench, person: User, process: Process, values: int) -> dict[str, Any]:
    meter, disk = Meter(person, process), 0
    before, begin = process.tally.returned * METRICS, time.monotonic()
    process.allow(values // METRICS)
    seconds = 0.0
    while bench.server.store.count(process.place.run) < values:
        assert seconds < _LONGEST, f"{values:,} values are not stored after {seconds:.0f} s"
        time.sleep(max(_SHORTEST, _SHARE * seconds))
        disk = max(disk, on_disk(person))
        seconds = time.monotonic() - begin
    meter.look()
    print(f"  {values:,} values: {(values - before) / seconds:,.0f} a second", flush=True)
    return {
        "values": values,
        "rate": (values - before) / seconds,
        "call": statistics.median(process.tally.durations()[-LAST:]),
        "host": meter.host.megabytes,
        "shipper": meter.helpers.megabytes,
        "shipper_cpu": meter.helpers.seconds,
        "disk": disk / 1e6,
    }


def figures(results: Results) -> list[Figure]:  # noqa: ARG001 - as each measurement has them
    """The issue asks for no target here."""
    return []


def section(rows: Rows) -> str:
    """A line for each point."""
    head = (
        f"values stored / a second, since the line before / median of the last {LAST:,} calls / "
        "memory of the training / of the shipper / the shipper's processor / journal at most"
    )
    return table(head.split(" / "), map(_line, rows))


def _line(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['values']:,}",
        f"{row['rate']:,.0f}",
        duration(row["call"]),
        f"{row['host']:.0f} MB",
        f"{row['shipper']:.0f} MB",
        f"{row['shipper_cpu']:.1f} s",
        f"{row['disk']:.1f} MB",
    ]


def plot(rows: Rows, axes: Axes) -> None:
    """Values a second, by how many there are."""
    axes.plot([row["values"] for row in rows], [row["rate"] for row in rows], marker="o")
    axes.set_xscale("log")
    axes.set_ylim(0, 1.1 * max(row["rate"] for row in rows))
    axes.set_xlabel("values of the run")
    axes.set_ylabel("values a second that can be read, since the point before")
