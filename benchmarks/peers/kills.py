"""What is left of a run whose process is killed at a random moment."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from figures import Figure

from peers.harness import Bench, Left, User, user
from peers.tables import Results, Rows, grouped, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "`kill -9` at a random moment"
SEED = 20261127
AT_ONCE = 2
"""Processes, as many as the machine that this was made on has cores."""
OPEN = ("RUNNING", "active", "has not ended")
"""What packages call a run that goes on."""


class Size(NamedTuple):
    """How much is measured."""

    kills: int
    """Of each contender."""
    within: float
    """Seconds after the first call."""
    grace: float
    """Seconds after the last kill in which helpers may do by themselves what they do."""


FULL = Size(kills=100, within=1.0, grace=10)
QUICK = Size(kills=3, within=0.3, grace=5)
_STEPS = 20_000
"""More than anybody comes to log."""


def measure(bench: Bench) -> Rows:
    """A row for each kill; ``lost`` is after what the package offers for recovery."""
    size = QUICK if bench.quick else FULL
    rows: Rows = []
    for contender in bench.contenders:
        with user(contender) as person:
            chance = random.Random(f"{SEED} {contender.name}")
            moments = [chance.uniform(0, size.within) for _ in range(size.kills)]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                left = list(pool.map(lambda moment: _kill(bench, person, moment), moments))
            time.sleep(size.grace)
            alone = person.audits(left)
            final = person.audits(left, recover=True) if contender.can_recover else alone
        rows += [
            {"contender": contender.name, **after._asdict(), "lost_alone": before.lost}
            for before, after in zip(alone, final, strict=True)
        ]
        lost = sum(audit.lost for audit in final)
        calls = sum(audit.calls for audit in final)
        print(f"  {contender.name}: {lost:,} of {calls:,} calls lost", flush=True)
    return rows


def _kill(bench: Bench, person: User, moment: float) -> Left:
    process = person.start(person.place(bench.server), _STEPS)
    assert process.wait_until(lambda tally: tally.returned > 0, 120)
    time.sleep(moment)
    return process.kill()


def figures(results: Results) -> list[Figure]:
    """The issue's target: first of all, which is nothing lost, nothing doubled, and an end told."""
    ours = grouped(results["kills"], "contender").get("autolog")
    if not ours:
        return []
    return [
        Figure(f"{name}, {len(ours)} kills", sum(map(count, ours)), 0, "")
        for name, count in (
            ("calls lost", lambda row: row["lost"]),
            ("values doubled", lambda row: row["doubled"]),
            ("values that nobody logged", lambda row: row["foreign"]),
            ("runs left open", lambda row: row["status"] in OPEN),
        )
    ]


def lossless(rows: Rows) -> set[str]:
    """Who lost nothing."""
    return {
        name
        for name, kills in grouped(rows, "contender").items()
        if not any(kill["lost"] for kill in kills)
    }


def section(rows: Rows) -> str:
    """A line for each contender."""
    head = "kills / calls that had returned / lost / missing before recovery / kills with a loss"
    lines = [_line(name, kills) for name, kills in grouped(rows, "contender").items()]
    return table(["", *head.split(" / "), "values doubled", "status of the runs"], lines)


def _line(name: str, kills: Rows) -> list[str]:
    calls, lost, alone, doubled = (
        sum(kill[key] for kill in kills) for key in ("calls", "lost", "lost_alone", "doubled")
    )
    struck = sum(kill["lost"] > 0 for kill in kills)
    statuses = Counter(kill["status"] for kill in kills).most_common()
    said = ", ".join(f"{status} {count}" for status, count in statuses)
    counts = (len(kills), calls, lost, alone, struck, doubled)
    return [name, *(f"{count:,}" for count in counts), said]


def plot(rows: Rows, axes: Axes) -> None:
    """The share of the calls that is lost."""
    measured = grouped(rows, "contender")
    shares = [
        100 * sum(kill["lost"] for kill in kills) / max(1, sum(kill["calls"] for kill in kills))
        for kills in measured.values()
    ]
    axes.barh(list(measured), shares)
    axes.invert_yaxis()
    axes.set_xlabel("percent of the calls that had returned and are lost")
