"""Records of one run → batches that one request can carry, and the rule of when to send.

Pure: no clock, no I/O. Whoever calls passes the ages in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from autolog.records import Link, Metrics, Params, Tags

_Item = TypeVar("_Item")

_METRIC_OVERHEAD = 128
"""Field names, punctuation, the longest float64 (24) and two of the longest int64 (20 each)."""
_LINK_OVERHEAD = 64
_PAIR_OVERHEAD = 24
_ENVELOPE = 512
"""Room for the run id and the outermost object."""


class Metric(NamedTuple):
    """One point of a metric's history."""

    key: str
    value: float
    timestamp: int
    """Milliseconds since the epoch."""
    step: int
    link: Link | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One request's worth of one run; exactly one of the three kinds is not empty.

    Params never share a request with metrics, because one changed param makes MLflow drop all of
    the request.
    """

    run_id: str
    metrics: tuple[Metric, ...] = ()
    params: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.metrics) + len(self.params) + len(self.tags)

    def halves(self) -> tuple[Batch, Batch]:
        """The batch in two, in order; neither is empty when it has at least two items."""
        middle = len(self) // 2
        return self._part(slice(middle)), self._part(slice(middle, None))

    def _part(self, of: slice) -> Batch:
        return Batch(self.run_id, self.metrics[of], self.params[of], self.tags[of])


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one request to a backend may hold."""

    metrics: int = 1000
    params: int = 100
    tags: int = 100
    bytes: int = 1_000_000
    """Of the JSON body. An item larger than that goes alone, for the server to judge."""
    param_length: int = 6000
    """Characters of a param's value; the shipper shortens a longer one."""
    tag_length: int = 8000
    """Characters of a tag's value, likewise."""
    requests: int = 1
    """Batches of metrics of a run that may be on their way at once."""


MLFLOW = Limits()
MLFLOW_SERVER = Limits(requests=3)
"""Most of a request is the server's Python, of which it has several processes. What is newest of a
metric goes by step and time there, not by what comes last."""
AZUREML = Limits(metrics=200, tags=50, tag_length=1000)
"""Azure ML takes 250 values of a name in a batch, and a tag's value up to 1,000 characters:
https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity"""
SQLITE = Limits(metrics=4000, bytes=4_000_000)
"""A transaction waits for the disk several times, however much is in it."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When pending values are sent: enough of them, old enough, or asked for."""

    values: int = MLFLOW.metrics
    seconds: float = 1.0

    def due(self, pending: int, oldest_age: float, flush: bool = False) -> bool:
        """Whether to send now what waits: so many values, the oldest for so many seconds."""
        return flush or pending >= self.values or oldest_age >= self.seconds


def batches(
    run_id: str, records: Iterable[Metrics | Params | Tags], limits: Limits = MLFLOW
) -> Iterator[Batch]:
    """Batches of one run's records within the limits: params, then tags, then metrics.

    Metrics keep their order, and a point given twice is sent once. Of a param given twice the
    first value stands, of a tag the last, as on the server.
    """
    metrics: dict[Metric, None] = {}
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    for record in records:
        match record:
            case Metrics():
                metrics.update(dict.fromkeys(_points(record)))
            case Params():
                params = {**record.params, **params}
            case Tags():
                tags.update(record.tags)
    for pairs in _chunks(params.items(), _sizes(params), limits.params, limits.bytes):
        yield Batch(run_id, params=pairs)
    for pairs in _chunks(tags.items(), _sizes(tags), limits.tags, limits.bytes):
        yield Batch(run_id, tags=pairs)
    widths = {series: _width(*series) for series in {(m.key, m.link) for m in metrics}}
    sizes = [widths[metric.key, metric.link] for metric in metrics]
    for points in _chunks(metrics, sizes, limits.metrics, limits.bytes):
        yield Batch(run_id, metrics=points)


def _points(record: Metrics) -> Iterator[Metric]:
    links = record.links or (None,) * len(record.keys)
    for key, value, link in zip(record.keys, record.values, links, strict=True):
        # One NaN object for all: NaN equals only itself, and two equal points must be equal here.
        number = math.nan if math.isnan(value) else value
        yield Metric(key, number, record.timestamp, record.step, link)


def _width(key: str, link: Link | None) -> int:
    linked = 0 if link is None else _LINK_OVERHEAD + sum(_size(part) for part in link if part)
    return _METRIC_OVERHEAD + _size(key) + linked


def _sizes(pairs: dict[str, str]) -> list[int]:
    return [_PAIR_OVERHEAD + _size(key) + _size(value) for key, value in pairs.items()]


def _size(text: str) -> int:
    # With every other character escaped, at least as long as the UTF-8 that is sent.
    return len(json.dumps(text))


def _chunks(
    items: Iterable[_Item], sizes: Iterable[int], most: int, most_bytes: int
) -> Iterator[tuple[_Item, ...]]:
    chunk: list[_Item] = []
    filled = _ENVELOPE
    for item, size in zip(items, sizes, strict=True):
        if chunk and (len(chunk) == most or filled + size > most_bytes):
            yield tuple(chunk)
            chunk, filled = [], _ENVELOPE
        chunk.append(item)
        filled += size
    if chunk:
        yield tuple(chunk)
