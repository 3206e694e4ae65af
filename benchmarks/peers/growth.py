"""What a call, the memory and the disk come to as one process logs more and more."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from figures import Figure

from peers.contenders import Contender
from peers.harness import Bench, User, user
from peers.tables import Results, Rows, duration, grouped, median, spread, table
from peers.work import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "As a process logs more and more"
LAST = 1000
"""Calls before a point, whose median is that point's."""
_OFFLINE = {"AUTOLOG_MODE": "offline"}
"""All stays on the local disk, as with those that only write there."""
_TALLIED = 8
"""Bytes that a call takes in the tally, which its process maps."""


class Size(NamedTuple):
    """How much is measured."""

    points: tuple[int, ...]
    """Values that have been logged, in steps of ten."""
    seconds: float
    """From a point to the next; who takes longer stops there."""
    rounds: int


FULL = Size(points=(10_000, 100_000, 1_000_000, 10_000_000), seconds=15, rounds=3)
QUICK = Size(points=(10_000, 20_000), seconds=15, rounds=1)


def measure(bench: Bench) -> Rows:
    """A row for each contender, round and point; times in nanoseconds."""
    size = QUICK if bench.quick else FULL
    rows: Rows = []
    for number in range(size.rounds):
        for contender in bench.contenders:
            if not contender.sends or contender.name == "autolog":
                for row in _points(bench, size, contender):
                    rows.append({"contender": contender.name, "round": number, **row})
                print(f"  {contender.name}: {rows[-1]['values']:,} values", flush=True)
    return rows


def _points(bench: Bench, size: Size, contender: Contender) -> Iterator[dict[str, Any]]:
    with user(contender) as person:
        person.environ |= _OFFLINE
        process = person.start(person.place(bench.server), size.points[-1] // METRICS, trains=False)
        process.linger()
        process.allow(0)
        assert process.wait_until(lambda tally: tally.ready, 120)
        for values in size.points:
            before, calls = process.tally.returned, values // METRICS
            process.allow(calls)
            process.wait_until(lambda tally, calls=calls: tally.returned == calls, size.seconds)
            if process.tally.returned < calls:
                return
            times = process.tally.durations(before)
            yield {
                "values": values,
                "call": statistics.median(times[-LAST:]),
                "mean": statistics.mean(times),
                "memory": (_resident(person) - calls * _TALLIED) / 1e6,
                "disk": on_disk(person) / 1e6,
            }


def _resident(person: User) -> int:
    """Bytes of all its processes."""
    return sum(process.memory_info().rss for process in person.processes())


def on_disk(person: User) -> int:
    """Bytes of all its files, those of the harness aside."""
    return sum(
        path.lstat().st_blocks * 512
        for folder in (person.environ["HOME"], person.environ["AUTOLOG_DIR"])
        for path in Path(folder).rglob("*")
        if path.suffix not in (".tally", ".log")
    )


def figures(results: Results) -> list[Figure]:
    """The issue's target: a call costs the same however much was logged before."""
    ours = [row for row in results["growth"] if row["contender"] == "autolog"]
    points = grouped(ours, "values")
    if len(points) < 2:
        return []
    first, *_, last = points
    return [
        Figure(
            f"autolog, a call, {what}, at {last:,.0e} values / at {first:,.0e}",
            median(points[last], key) / median(points[first], key),
            1.2,
            "x",
        )
        for key, what in (("call", "median"), ("mean", "mean"))
    ]


def section(rows: Rows) -> str:
    """A table for each thing that may grow."""
    points = list(grouped(rows, "values"))
    kinds = {
        f"median of the last {LAST:,} calls": ("call", duration),
        "mean of the calls since the point before": ("mean", duration),
        "memory, helpers included": ("memory", "{:.0f} MB".format),
        "on the disk": ("disk", "{:.1f} MB".format),
    }
    return "\n\n".join(
        table(
            [what, *(f"{values:,} values" for values in points)],
            [
                [name, *(_cell(own, values, key, shown) for values in points)]
                for name, own in grouped(rows, "contender").items()
            ],
        )
        for what, (key, shown) in kinds.items()
    )


def _cell(rows: Rows, values: int, key: str, shown: Callable[[float], str]) -> str:
    """Empty where it took too long to come so far."""
    measured = [row[key] for row in rows if row["values"] == values]
    return spread(measured, shown) if measured else ""


def plot(rows: Rows, axes: Axes) -> None:
    """The mean of a call on its way to each point."""
    for name, own in grouped(rows, "contender").items():
        points = grouped(own, "values")
        means = [median(at, "mean") / 1000 for at in points.values()]
        axes.plot(
            list(points), means, marker="o", label=name, linewidth=2 if name == "autolog" else 1
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("values logged")
    axes.set_ylabel("microseconds a call, the mean since the point before")
    axes.legend(fontsize="small")
