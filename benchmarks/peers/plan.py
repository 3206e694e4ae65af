"""What a thousand trainings would need: arithmetic on what `scale` measured."""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

from autolog.batching import MLFLOW_SERVER
from peers.tables import Rows, table

TRAININGS, A_MACHINE = 1000, 8
_BACKEND = "PostgreSQL"
_DAY = 86_400
_LOAD = 0.5
"""Share of its time that a worker is to be busy, so that requests need not queue."""


class _Habit(NamedTuple):
    """How much a training logs."""

    words: str
    values: float
    """A second."""
    requests: float
    """A second, at most: a value waits for ``batch_seconds``, by default 1, for others."""


_HABITS = (
    _Habit("10 metrics a minute, as at ends of epochs", 10 / 60, 1 / 60),
    _Habit("10 metrics a second", 10, 1),
    _Habit("the same with `batch_seconds=10`", 10, 0.1),
    _Habit("10 metrics ten times a second", 100, 1),
    _Habit("the same with `batch_seconds=10`", 100, 0.1),
)


class _Cost(NamedTuple):
    """Seconds of processors."""

    request: float
    value: float
    """That each value in a request adds."""

    def __call__(self, requests: float, values: float) -> float:
        """Of so many; where these are a second's, the cores that they keep busy."""
        return requests * self.request + values * self.value


def text(rows: Rows) -> str:
    """The plan, each number in it measured or worked out on the page."""
    own = [row for row in rows if row["backend"] == _BACKEND]
    posted = [row for row in own if row["case"] == "posting"]
    stores = [row for row in own if row["case"] == "store"]
    largest = max(stores, key=lambda row: row["values"])
    cost, value_bytes = cost_of(posted), largest["bytes"] / largest["values"]
    a_worker = {
        what: statistics.median(row[what] / row["workers"] for row in stores)
        for what in ("connections", "memory")
    }
    about = (
        f"What {TRAININGS:,} trainings would need, {A_MACHINE} on a machine, worked out from the "
        f"tables above for {_BACKEND} {largest['version']}; it was not tried."
    )
    measured = (
        f"From requests of two sizes: a request keeps server and database busy for "
        f"{1e3 * cost.request:.2f} ms, and each value in it for {1e6 * cost.value:.0f} µs more.\n"
        f"{largest['values']:,} values took {largest['bytes'] / 1e6:.1f} MB with their indexes, "
        f"{value_bytes:.0f} bytes each.\nA worker of the server held "
        f"{a_worker['connections']:.1f} connections to the database and took "
        f"{a_worker['memory']:.0f} MB."
    )
    bounds = (
        f"Cores are requests x {1e3 * cost.request:.2f} ms + values x {1e6 * cost.value:.0f} µs, "
        f"the database's included.\nMore connections than {largest['max_connections']}, the "
        f"default, need a higher `max_connections` or a pooler.\n"
        f"Each machine's shipper has one connection to the server, {TRAININGS // A_MACHINE} in "
        f"all, and up to {MLFLOW_SERVER.requests} while it has a backlog."
    )
    lines = [_line(habit, cost, value_bytes, a_worker) for habit in _HABITS]
    return "\n\n".join(
        ["#### The scale plan", about, measured, table(_HEAD, lines), bounds, _check(own, cost)]
    )


_HEAD = (
    "each training logs",
    "values a second",
    "requests a second, at most",
    "cores kept busy",
    f"workers, each busy for {_LOAD:.0%}",
    "connections to the database",
    "their memory",
    "on the disk in a day",
)


def cost_of(posted: Rows) -> _Cost:
    """Of server and database together, the medians over the numbers of workers."""
    found = []
    for workers in {row["workers"] for row in posted}:
        each = sorted(
            (row["values"] / row["requests"], (row["server"] + row["database"]) / row["requests"])
            for row in posted
            if row["workers"] == workers
        )
        (few, short), (many, long) = each[0], each[-1]
        value = (long - short) / (many - few)
        found.append(_Cost(short - few * value, value))
    return _Cost(*map(statistics.median, zip(*found, strict=True)))


def _line(habit: _Habit, cost: _Cost, value_bytes: float, a_worker: dict[str, float]) -> list[str]:
    values, requests = TRAININGS * habit.values, TRAININGS * habit.requests
    cores = cost(requests, values)
    workers = math.ceil(cores / _LOAD)
    return [
        habit.words,
        f"{TRAININGS:,} x {habit.values:.3g} = {values:,.0f}",
        f"{TRAININGS:,} x {habit.requests:.3g} = {requests:,.0f}",
        f"{requests * cost.request:.2f} + {values * cost.value:.2f} = {cores:.2f}",
        f"{workers}",
        f"{workers * a_worker['connections']:.0f}",
        f"{workers * a_worker['memory'] / 1e3:.1f} GB",
        f"{values * value_bytes * _DAY / 1e9:,.1f} GB",
    ]


def _check(rows: Rows, cost: _Cost) -> str:
    """The same arithmetic for what was measured, beside what was measured."""
    steady = [row for row in rows if row["case"] == "steady"]
    row = max(steady, key=lambda each: (each["trainings"], each["workers"]))
    measured = (row["server"] + row["database"]) / row["seconds"]
    expected = cost(row["requests"], row["values"]) / row["seconds"]
    return (
        f"To check it: {row['trainings']} trainings with a step a second on {row['machines']} "
        f"machine{'s' * (row['machines'] > 1)} made {row['requests'] / row['seconds']:.1f} "
        f"requests a second, which come to {expected:.2f} cores by this arithmetic; "
        f"{measured:.2f} were measured.\nTheir shippers kept "
        f"{row['shippers'] / row['seconds']:.2f} cores busy, and all could be read "
        f"{row['late']:.1f} s after the last step."
    )
