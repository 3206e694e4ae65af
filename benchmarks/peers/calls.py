"""Time that the training thread spends in the call that logs a step of ten metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from faults import FaultyProxy
from figures import Figure

from peers import kills
from peers.contenders import FILES, SERVER, Contender
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


FULL = Size(steps=5000, warm_up=100, seconds=6, rounds=3)
QUICK = Size(steps=100, warm_up=10, seconds=4, rounds=1)


def measure(bench: Bench) -> Rows:
    """A row for each contender, condition and round; times in nanoseconds."""
    size = QUICK if bench.quick else FULL
    rows: Rows = []
    for number in range(size.rounds):
        for contender in bench.contenders:
            for condition in CONDITIONS if contender.sends else CONDITIONS[:1]:
                row = _round(bench, size, contender, condition)
                about = {"contender": contender.name, "to": contender.to}
                rows.append({**about, "condition": condition, "round": number, **row})
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
    """The issue's targets: the first of all, and far ahead of those that lose nothing by a kill."""
    found = []
    for condition in CONDITIONS:
        others = _measured(results["calls"], condition)
        ours = others.pop("autolog", None)
        if ours and others:
            found += [_beside_the_next(ours, others, condition, each) for each in QUANTILES]
            lossless = kills.lossless(results.get("kills", []))
            safe = {name: rounds for name, rounds in others.items() if name in lossless}
            if safe and condition == "up":
                found.append(_before_the_safe(ours, safe))
    return found


def _measured(rows: Rows, condition: str) -> dict[str, Rows]:
    """Who only writes locally has no server, and stands beside the others in each condition."""
    local = [row for row in rows if row["to"] == FILES]
    sending = [row for row in rows if row["to"] == SERVER and row["condition"] == condition]
    return grouped(sending + local, "contender")


def _beside_the_next(ours: Rows, others: dict[str, Rows], condition: str, quantile: str) -> Figure:
    least = {name: median(rounds, quantile) for name, rounds in others.items()}
    name = min(least, key=lambda each: least[each])
    ratio = median(ours, quantile) / least[name]
    return Figure(f"a call, server {condition}, {quantile} / {name}, the next", ratio, 1, "x")


def _before_the_safe(ours: Rows, safe: dict[str, Rows]) -> Figure:
    least = {name: median(rounds, "median") for name, rounds in safe.items()}
    name = min(least, key=lambda each: least[each])
    ratio = least[name] / median(ours, "median")
    return Figure(
        f"a call, {name}, the next that kills cost nothing / autolog", ratio, 10, "x", True
    )


def section(rows: Rows) -> str:
    """A table for each condition."""
    parts = []
    for condition, own in grouped(rows, "condition").items():
        lines = [
            [
                name,
                *(_cell(rounds, each) for each in QUANTILES),
                f"{median(rounds, 'returned'):,.0f}",
            ]
            for name, rounds in grouped(own, "contender").items()
        ]
        parts.append(table([f"server {condition}", *QUANTILES, "calls a round"], lines))
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
