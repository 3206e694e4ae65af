"""Seconds to import a package and open a run, and to end it while the server is dead."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from faults import FaultyProxy

from peers.contenders import Contender
from peers.harness import Bench, Process, user
from peers.tables import Results, Rows, grouped, median, spread, table
from peers.tally import Tally

if TYPE_CHECKING:
    from figures import Figure
    from matplotlib.axes import Axes

TITLE = "Seconds to start, and to end with the server dead"
_BEFORE, _AFTER = 100, 100
"""Steps with the server up, and with it dead."""


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    seconds: float
    """The longest wait for an end."""


FULL = Size(rounds=3, seconds=40)
QUICK = Size(rounds=1, seconds=12)


def measure(bench: Bench) -> Rows:
    """A row for each contender, round and case."""
    size = QUICK if bench.quick else FULL
    rows: Rows = []
    for number in range(size.rounds):
        bare = _seconds_of_python()
        for contender in bench.contenders:
            seconds = _start(bench, contender) - bare
            rows.append(
                {"case": "start", "contender": contender.name, "round": number, "seconds": seconds}
            )
        for row in _ends(bench, size):
            rows.append({"case": "end", "round": number, **row})
        print(f"  round {number + 1} of {size.rounds}", flush=True)
    return rows


def _start(bench: Bench, contender: Contender) -> float:
    """From the start of the process until its run is open."""
    with user(contender) as person:
        process = person.start(person.place(bench.server), 1)
        assert process.wait_until(lambda tally: tally.ready, 120)
        return (process.tally.words[Tally.READY] - process.began) / 1e9


def _seconds_of_python() -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - begin


def _ends(bench: Bench, size: Size) -> Iterator[dict[str, Any]]:
    """All that send, at once, for most of them wait: from the death of the server to their end."""
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(FaultyProxy(bench.server.url))
        waiting: dict[str, Process] = {}
        for contender in bench.contenders:
            if contender.sends:
                person = stack.enter_context(user(contender))
                place = person.place(bench.server, proxy.url)
                waiting[contender.name] = process = person.start(place, _BEFORE + _AFTER)
                process.allow(_BEFORE)
                assert process.wait_until(lambda tally: tally.returned == _BEFORE, 120)
        proxy.refuse()
        begin = time.monotonic()
        for process in waiting.values():
            process.allow(_BEFORE + _AFTER)
        while waiting:
            seconds = time.monotonic() - begin
            for name, process in list(waiting.items()):
                has_ended = process.wait(0.005)
                if has_ended or seconds > size.seconds:
                    del waiting[name]
                    returned = process.tally.returned - _BEFORE
                    yield {
                        "contender": name,
                        "seconds": seconds,
                        "has_ended": has_ended,
                        "returned": returned,
                    }


def figures(results: Results) -> list[Figure]:  # noqa: ARG001 - as each measurement has them
    """The issue asks for no target here."""
    return []


def section(rows: Rows) -> str:
    """A line for each contender; who writes locally has no server that could be dead."""
    starts, ends = (
        grouped([row for row in rows if row["case"] == case], "contender")
        for case in ("start", "end")
    )
    head = ["", "import and start, over bare Python", "end", f"of {_AFTER} calls returned"]
    return table(head, [_line(name, own, ends.get(name, [])) for name, own in starts.items()])


def _line(name: str, starts: Rows, ends: Rows) -> list[str]:
    start = spread([row["seconds"] for row in starts], "{:.2f} s".format)
    if not ends:
        return [name, start, "", ""]
    end = spread([row["seconds"] for row in ends], "{:.1f} s".format)
    has_ended = all(row["has_ended"] for row in ends)
    returned = f"{median(ends, 'returned'):.0f}"
    return [name, start, end if has_ended else f"not within {end}", returned]


def plot(rows: Rows, axes: Axes) -> None:
    """The start."""
    starts = grouped([row for row in rows if row["case"] == "start"], "contender")
    axes.barh(list(starts), [median(own, "seconds") for own in starts.values()])
    axes.invert_yaxis()
    axes.set_xlabel("seconds to import and open a run, over bare Python")
