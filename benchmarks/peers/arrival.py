"""Time until 100,000 metrics can be read, and what that takes beside the time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from figures import Figure, posting

from peers.contenders import MEMORY, Contender
from peers.harness import Bench, Meter, Process, User, user
from peers.tables import Results, Rows, grouped, median, spread, table
from peers.tally import Tally
from peers.work import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Until all metrics can be read from the store"
CEILING = {"posting encoded bodies": 1, "posting encoded bodies, 3 at once": 3}
"""Programs that do nothing else, so many at a time: what they need is what the server needs."""
_EVERY = 0.25
"""Seconds between two looks."""


class Size(NamedTuple):
    """How much is measured."""

    steps: int
    seconds: float
    """After which it is said how many metrics have arrived."""
    rounds: int


FULL = Size(steps=10_000, seconds=25, rounds=3)
QUICK = Size(steps=200, seconds=30, rounds=1)


def measure(bench: Bench) -> Rows:
    """A row for each contender and round, the ceiling among them."""
    size = QUICK if bench.quick else FULL
    rows: Rows = []
    for number in range(size.rounds):
        for contender in bench.contenders:
            if contender.to == MEMORY:
                continue  # nothing can be read
            row = _round(bench, size, contender)
            rows.append({"contender": contender.name, "round": number, **row})
            print(f"  {contender.name}: {row['arrived']:,} in {row['seconds']:.1f} s", flush=True)
        for name, clients in CEILING.items():
            each = size.steps * METRICS // clients
            seconds = posting(bench.server.url, each, METRICS, clients=clients).seconds
            stored = {"logged": each * clients, "arrived": each * clients, "seconds": seconds}
            rows.append({"contender": name, "round": number, "sends": True, **stored})
    return rows


def _round(bench: Bench, size: Size, contender: Contender) -> dict[str, Any]:
    with user(contender) as person:
        process = person.start(person.place(bench.server), size.steps, trains=False)
        process.linger()
        process.allow(0)
        assert process.wait_until(lambda tally: tally.ready, 120)
        meter = Meter(person, process)
        requests = bench.server.request_count("/api/")
        begin = time.monotonic_ns()
        process.allow(size.steps)
        ended = 0
        while not ended and time.monotonic_ns() < begin + size.seconds * 1e9:
            time.sleep(_EVERY)
            meter.look()
            ended = _ended(bench, process, contender)
        return {
            "sends": contender.sends,
            "logged": size.steps * METRICS,
            "seconds": ((ended or time.monotonic_ns()) - begin) / 1e9,
            "arrived": _arrived(bench, person, process),
            "requests": bench.server.request_count("/api/") - requests,
            "host_cpu": meter.host.seconds,
            "host_memory": meter.host.megabytes,
            "helper_cpu": meter.helpers.seconds,
            "helper_memory": meter.helpers.megabytes,
        }


def _ended(bench: Bench, process: Process, contender: Contender) -> int:
    """When all was there, in nanoseconds of the machine's clock; 0 where it is not."""
    if not contender.sends:
        return process.tally.words[Tally.FINISHED]
    has_all = bench.server.store.count(process.place.run) == process.steps * METRICS
    return time.monotonic_ns() if has_all else 0


def _arrived(bench: Bench, person: User, process: Process) -> int:
    """As a reader counts: rows behind the server, or what the package itself reads of its files."""
    if person.contender.sends:
        return bench.server.store.count(process.place.run)
    (audit,) = person.audits([process.kill()])
    return (audit.calls - audit.lost) * METRICS


def figures(results: Results) -> list[Figure]:
    """The issue's targets: near the server's ceiling, and ahead of all that send."""
    sending = grouped([row for row in results["arrival"] if row["sends"]], "contender")
    ceiling = min(median(sending.pop(name), "seconds") for name in CEILING)
    ours = sending.pop("autolog", None)
    if not ours:
        return []
    seconds = median(ours, "seconds")
    logged, arrived = ours[0]["logged"], median(ours, "arrived")
    found = [
        Figure(f"of {logged:,} metrics, autolog's that arrived", arrived, logged, "", True),
        Figure("arrival / the server's ceiling", ceiling / seconds, 0.8, "x", True),
    ]
    if sending:
        name = min(sending, key=lambda each: median(sending[each], "seconds"))
        ratio = median(sending[name], "seconds") / seconds
        found.append(Figure(f"arrival / {name}, the next that sends", ratio, 1, "x", True))
    return found


def section(rows: Rows) -> str:
    """A line for each contender."""
    head = "had arrived / after / requests / processor: training, helpers / memory: the same"
    lines = [_line(name, rounds) for name, rounds in grouped(rows, "contender").items()]
    return table(["", *head.split(" / ")], lines)


def _line(name: str, rounds: Rows) -> list[str]:
    arrived = f"{median(rounds, 'arrived'):,.0f}"
    seconds = spread([row["seconds"] for row in rounds], "{:.1f} s".format)
    if name in CEILING:
        return [name, arrived, seconds, "", "", ""]
    cpu, memory = (
        ", ".join(f"{median(rounds, f'{who}_{what}'):{form}}" for who in ("host", "helper"))
        for what, form in (("cpu", ".1f"), ("memory", ".0f"))
    )
    requests = f"{median(rounds, 'requests'):,.0f}" if rounds[0]["sends"] else "writes locally"
    return [name, arrived, seconds, requests, f"{cpu} s", f"{memory} MB"]


def plot(rows: Rows, axes: Axes) -> None:
    """Metrics a second that had arrived when the round ended."""
    measured = grouped(rows, "contender")
    rates = {
        name: median(rounds, "arrived") / median(rounds, "seconds")
        for name, rounds in measured.items()
    }
    colours = ["C0" if rounds[0]["sends"] else "C7" for rounds in measured.values()]
    axes.barh(list(rates), list(rates.values()), color=colours)
    axes.invert_yaxis()
    axes.set_xlabel("metrics a second that can be read; grey: written locally, not sent")
