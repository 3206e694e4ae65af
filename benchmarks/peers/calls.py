"""Time that the training thread spends in the call that logs a step of ten metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from faults import FaultyProxy
from figures import Figure

from peers import kills
from peers.contenders import Contender
from peers.harness import Bench, Process, user
from peers.tables import Results, Rows, duration, grouped, median, spread, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "The training thread's time for a step of ten metrics"
CONDITIONS = ("up", "black-holed", "dead")
QUANTILES = {"median": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


class Size(NamedTuple):
    """How much is measured."""

    steps: int
    """In a round."""
    warm_up: int
    """Steps before, with the server up."""
    seconds: float
    """After which a round ends, whoever is slow."""
    rounds: int


FULL = Size(steps=5000, warm_up=100, seconds=8, rounds=3)
QUICK = Size(steps=100, warm_up=10, seconds=4, rounds=1)


def measure(bench: Bench) -> Rows:
    """A row for each contender, condition and round; times in nanoseconds."""
    size = QUICK if bench.quick else FULL
    rows: Rows = []
    for number in range(size.rounds):
        for contender in bench.contenders:
            for condition in CONDITIONS if contender.sends else CONDITIONS[:1]:
                row = _round(bench, size, contender, condition)
                rows.append(
                    {"contender": contender.name, "condition": condition, "round": number, **row}
                )
                print(f"  {contender.name}, {condition}: {duration(row['median'])}", flush=True)
    return rows


def _round(bench: Bench, size: Size, contender: Contender, condition: str) -> dict[str, Any]:
    with user(contender) as person, FaultyProxy(bench.server.url) as proxy:
        address = bench.server.url if condition == "up" else proxy.url
        process = person.start(person.place(bench.server, address), size.warm_up + size.steps)
        process.allow(size.warm_up)
        assert process.wait_until(lambda tally: tally.returned == size.warm_up, 120)
        {"up": proxy.pass_on, "black-holed": proxy.black_hole, "dead": proxy.refuse}[condition]()
        process.allow(size.warm_up + size.steps)
        process.wait_until(lambda tally: tally.looped, size.seconds)
        row = _quantiles(process, size.warm_up)
        process.kill()
    return row


def _quantiles(process: Process, first: int) -> dict[str, Any]:
    """Of the calls that returned; one that has not counts where it already is the longest."""
    stuck = process.tally.stuck()
    times = sorted(process.tally.durations(first))
    returned = len(times)
    is_stuck = stuck > max(times, default=0)
    if is_stuck:
        times.append(stuck)
    quantiles = {
        name: times[min(int(len(times) * share), len(times) - 1)]
        for name, share in QUANTILES.items()
    }
    return {**quantiles, "returned": returned, "stuck": is_stuck}


def figures(results: Results) -> list[Figure]:
    """The issue's targets: the first of all, and far ahead of those that lose nothing by a kill.

    Who only writes locally is measured once, and stands beside the others in each condition.
    """
    groups = grouped(results["calls"], "condition", "contender")
    lossless = kills.lossless(results.get("kills", []))
    local = {name: own for (_, name), own in groups.items() if name in _local(groups)}
    found = []
    for condition in CONDITIONS:
        measured = {name: own for (where, name), own in groups.items() if where == condition}
        others = {**local, **measured}
        others.pop("list.append", None)
        ours = others.pop("autolog", None)
        if not ours or not others:
            continue
        for quantile in QUANTILES:
            name, least = min(
                ((name, median(own, quantile)) for name, own in others.items()),
                key=lambda each: each[1],
            )
            ratio = median(ours, quantile) / least
            found.append(
                Figure(f"a call, server {condition}, {quantile} / {name}, the next", ratio, 1, "x")
            )
        safe = {name: median(own, "median") for name, own in others.items() if name in lossless}
        if condition == "up" and safe:
            name = min(safe, key=lambda each: safe[each])
            ratio = safe[name] / median(ours, "median")
            found.append(
                Figure(f"a call, {name} (none lost by kills) / autolog", ratio, 10, "x", True)
            )
    return found


def _local(groups: dict[Any, Rows]) -> set[str]:
    """Those that were only measured with the server up."""
    sends = {name for condition, name in groups if condition != "up"}
    return {name for _, name in groups} - sends


def section(rows: Rows) -> str:
    """A table for each condition."""
    parts = []
    for condition, own in grouped(rows, "condition").items():
        lines = [
            [name, *(_cell(rounds, quantile) for quantile in QUANTILES)]
            for name, rounds in grouped(own, "contender").items()
        ]
        parts.append(table([f"server {condition}", *QUANTILES], lines))
    return "\n\n".join(parts)


def _cell(rounds: Rows, quantile: str) -> str:
    shown = spread([row[quantile] for row in rounds], duration)
    is_open = any(row["stuck"] and row[quantile] == row["max"] for row in rounds)
    return f"more than {shown}" if is_open else shown


def plot(rows: Rows, axes: Axes) -> None:
    """Median and p99.9, the server up, on a scale of powers of ten."""
    measured = grouped([row for row in rows if row["condition"] == "up"], "contender")
    names = list(measured)
    for quantile in ("p99.9", "median"):
        microseconds = [median(measured[name], quantile) / 1000 for name in names]
        axes.barh(names, microseconds, label=quantile, alpha=0.8)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel("microseconds of the training thread a call, server up")
    axes.legend()
