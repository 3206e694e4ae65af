"""Many processes that log to one server at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from figures import server

from peers.contenders import Contender
from peers.fleet import Fleet, fleet
from peers.harness import Bench
from peers.tables import Results, Rows, duration, grouped, table
from peers.tally import Tally
from peers.work import METRICS

if TYPE_CHECKING:
    from figures import Figure
    from matplotlib.axes import Axes
    from support import MlflowServer

TITLE = "Many processes on one server"
_LEFT_OUT = "Lightning MLFlowLogger"
"""Makes the calls of MLflow's client, in processes of twice the size."""
_EVERY = 0.25
"""Seconds between two looks into the store."""


class Size(NamedTuple):
    """How much is measured."""

    processes: tuple[int, ...]
    steps: int
    """Of all processes together."""
    seconds: float
    """After which it is said how far they are."""


FULL = Size(processes=(1, 8, 64), steps=960, seconds=40)
QUICK = Size(processes=(1, 2), steps=40, seconds=40)


def measure(bench: Bench) -> Rows:
    """A row for each number of processes and each contender that sends; durations in ns."""
    size = QUICK if bench.quick else FULL
    rows: Rows = []
    for processes in size.processes:
        for contender in bench.contenders:
            if contender.sends and contender.name != _LEFT_OUT:
                with server() as own:  # a crowd can leave one that answers nobody for minutes
                    row = _crowd(own, size, contender, processes)
                rows.append({"contender": contender.name, "processes": processes, **row})
                print(
                    f"  {processes} of {contender.name}: {row['arrived']:,} of {row['logged']:,} "
                    f"in {row['seconds']:.1f} s",
                    flush=True,
                )
    return rows


def _crowd(
    mlflow: MlflowServer, size: Size, contender: Contender, processes: int
) -> dict[str, Any]:
    steps, store = size.steps // processes, mlflow.store
    with fleet(contender, mlflow, 1, processes, steps) as crowd:
        memory = sum(process.memory_full_info().pss for process in crowd.processes())
        before, requests = store.total(), mlflow.request_count("/api/")
        logged = steps * processes * METRICS
        for training in crowd.all:
            training.linger(False)
        begin = time.monotonic()
        crowd.go_on(steps)
        exits: dict[int, int] = {}
        arrived, seconds = 0, 0.0
        while time.monotonic() - begin < size.seconds:
            if arrived < logged:
                arrived = store.total() - before
                seconds = time.monotonic() - begin
            exits |= _exits(crowd, exits)
            if arrived == logged and len(exits) == processes:
                break
            time.sleep(_EVERY)
        calls = sorted(each for one in crowd.all for each in one.tally.durations(1))
        return {
            "logged": logged,
            "arrived": arrived,
            "seconds": seconds,
            "requests": mlflow.request_count("/api/") - requests,
            "call": statistics.median(calls),
            "p99": calls[int(len(calls) * 0.99)],
            "memory": memory / 1e6,
            "exits": sorted(exits.values()),
        }


def _exits(crowd: Fleet, known: Mapping[int, int]) -> dict[int, int]:
    """How long those took to end, from their last call, that have ended since the last look."""
    return {
        training.pid: time.monotonic_ns() - training.tally.words[Tally.LOOPED]
        for training in crowd.all
        if training.pid not in known and training.wait(0)
    }


def figures(results: Results) -> list[Figure]:  # noqa: ARG001 - as each measurement has them
    """The issue asks for no target here."""
    return []


def section(rows: Rows) -> str:
    """A line for each crowd."""
    head = (
        "processes / a call / p99 / had arrived / after / requests / memory / ended / median / last"
    )
    return table(["", *head.split(" / ")], map(_line, rows))


def _line(row: dict[str, Any]) -> list[str]:
    exits = row["exits"]
    return [
        row["contender"],
        f"{row['processes']}",
        duration(row["call"]),
        duration(row["p99"]),
        f"{row['arrived']:,} of {row['logged']:,}",
        f"{row['seconds']:.1f} s",
        f"{row['requests']:,}",
        f"{row['memory']:,.0f} MB",
        f"{len(exits)}",
        duration(statistics.median(exits)) if exits else "",
        duration(exits[-1]) if exits else "",
    ]


def plot(rows: Rows, axes: Axes) -> None:
    """Metrics a second that could be read."""
    for name, own in grouped(rows, "contender").items():
        rates = [row["arrived"] / row["seconds"] for row in own]
        axes.plot([row["processes"] for row in own], rates, marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("processes")
    axes.set_ylabel("metrics a second that can be read")
    axes.legend()
