"""What the stand-in was asked and what it accepted, doubles included."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from support import Point


@dataclass
class Seen:
    """A request as it arrived, and what became of it."""

    method: str
    host: str
    path: str
    is_signed: bool = False
    """Whether it bore a token."""
    at: float = field(default_factory=time.monotonic)
    """Seconds, by the monotonic clock."""
    status: int | None = None
    """None: no reply was sent."""
    fault: str | None = None


class Ledger:
    """The service's own memory of runs, beside that of the MLflow server.

    MLflow's SQL store drops a point that it has already; it is not known that the service does.
    So points are kept here as they come, and whatever reads them back is answered from here.
    """

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.points: defaultdict[str, list[Point]] = defaultdict(list)
        self.params: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self.tags: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._aliases: dict[str, str] = {}

    def reset(self) -> None:
        """Forget all but which runs have two ids: a job of before may still go on."""
        for kept in (self.requests, self.points, self.params, self.tags):
            kept.clear()

    # -- runs whose id the client made -------------------------------------------------------------

    def name(self, run_id: str, alias: str) -> None:
        """From now on clients know the run `run_id` of the MLflow server as `alias`."""
        self._aliases[alias] = run_id

    def inward(self, text: str) -> str:
        """`text` of a client in the ids of the MLflow server."""
        for alias, run_id in self._aliases.items():
            text = text.replace(alias, run_id)
        return text

    def outward(self, text: str) -> str:
        """`text` of the MLflow server in the ids that clients know."""
        for alias, run_id in self._aliases.items():
            text = text.replace(run_id, alias)
        return text

    # -- what was accepted -------------------------------------------------------------------------

    def accept(
        self,
        run_id: str,
        metrics: Iterable[Mapping[str, Any]] = (),
        params: Iterable[Mapping[str, Any]] = (),
        tags: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Note what the MLflow server has taken."""
        self.points[run_id].extend(map(_point, metrics))
        self.params[run_id].update((param["key"], param.get("value", "")) for param in params)
        self.tags[run_id].update((tag["key"], tag.get("value", "")) for tag in tags)

    def metric_names(self, run_id: str) -> list[str]:
        """Names of a run's metrics in the order of their first point."""
        return list(dict.fromkeys(point.key for point in self.points[run_id]))

    def history(self, run_id: str, key: str) -> list[Point]:
        """The points of one metric as they came."""
        return [point for point in self.points[run_id] if point.key == key]

    def doubles(self) -> Counter[tuple[str, Point]]:
        """Points that were accepted more than once, by run and point, with how often."""
        counted = Counter((run, point) for run, points in self.points.items() for point in points)
        return Counter({point: count for point, count in counted.items() if count > 1})


def _point(metric: Mapping[str, Any]) -> Point:
    value = float(metric["value"])
    return Point(
        metric["key"],
        int(metric.get("step", 0)),
        int(metric["timestamp"]),
        math.nan if math.isnan(value) else value,  # one object, which a set or a count finds again
    )


def json_number(value: float) -> float | str:
    """A value as JSON has it, where NaN and infinities are text."""
    if math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
