"""What batches hold, whatever the records are."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from autolog import batching
from autolog.batching import MLFLOW, Batch, Limits, Metric, Pace, batches
from autolog.exporters.wire import encode
from autolog.records import Link, Metrics, Params, Tags

_NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_INT64 = st.integers(-(2**63), 2**63 - 1)
_LINKS = st.none() | st.builds(Link, *[st.none() | _NAMES] * 3)


@st.composite
def _metrics(draw: st.DrawFn) -> Metrics:
    points = draw(st.dictionaries(_NAMES, st.floats(), min_size=1, max_size=6))
    links = draw(st.just(()) | st.tuples(*[_LINKS] * len(points)))
    step, timestamp = draw(st.integers(0, 3) | _INT64), draw(st.integers(0, 1) | _INT64)
    return Metrics(1, tuple(points), tuple(points.values()), step, timestamp, links)


_METRICS = _metrics()
_PARAMS = st.builds(Params, st.just(1), st.dictionaries(_NAMES, _NAMES, max_size=6))
_TAGS = st.builds(Tags, st.just(1), st.dictionaries(_NAMES, _NAMES, max_size=6))
_RECORDS = st.lists(st.one_of(_METRICS, _PARAMS, _TAGS), max_size=30)
_LIMITS = st.builds(
    Limits,
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(1, 3000),
)


def _point(metric: Metric) -> tuple[object, ...]:
    return metric._replace(value=math.nan) if math.isnan(metric.value) else metric


def _given(records: list[Metrics | Params | Tags]) -> list[tuple[object, ...]]:
    points = [
        _point(Metric(key, value, record.timestamp, record.step, link))
        for record in records
        if isinstance(record, Metrics)
        for key, value, link in zip(
            record.keys, record.values, record.links or [None] * len(record.keys), strict=True
        )
    ]
    return list(dict.fromkeys(points))


@given(_RECORDS, _LIMITS)
def test_every_point_is_sent_once_and_in_order(
    records: list[Metrics | Params | Tags], limits: Limits
) -> None:
    """The metrics of all batches are the given points, each once, in the order given."""
    sent = [_point(metric) for batch in batches("r", records, limits) for metric in batch.metrics]
    assert sent == _given(records)


@given(_RECORDS, _LIMITS)
def test_the_first_param_and_the_last_tag_stand(
    records: list[Metrics | Params | Tags], limits: Limits
) -> None:
    """Of values for one key the first param and the last tag are sent, and no key is lost."""
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    for record in records:
        if isinstance(record, Params):
            params = record.params | params
        elif isinstance(record, Tags):
            tags |= record.tags
    sent = list(batches("r", records, limits))
    assert sorted(pair for batch in sent for pair in batch.params) == sorted(params.items())
    assert sorted(pair for batch in sent for pair in batch.tags) == sorted(tags.items())


@given(_RECORDS, _LIMITS)
def test_no_batch_exceeds_a_limit(records: list[Metrics | Params | Tags], limits: Limits) -> None:
    """A batch holds one kind, no more items than allowed, and it fits unless it is one item."""
    for batch in batches("r", records, limits):
        assert [bool(batch.metrics), bool(batch.params), bool(batch.tags)].count(True) == 1
        assert len(batch.metrics) <= limits.metrics
        assert len(batch.params) <= limits.params
        assert len(batch.tags) <= limits.tags
        assert len(batch) == 1 or len(encode(batch)) <= limits.bytes


@given(_NAMES, _NAMES, _LINKS)
def test_no_item_is_counted_shorter_than_it_is_sent(key: str, text: str, link: Link | None) -> None:
    """What the encoder adds to the body for an item, its comma too, is within what is reckoned."""
    longest, smallest = -2.2250738585072014e-308, -(2**63)
    metric = Metric(key, longest, smallest, smallest, link)
    nothing = len(encode(Batch("r"))) - len(",")
    assert len(encode(Batch("r", metrics=(metric,)))) - nothing <= batching._width(key, link)
    (size,) = batching._sizes({key: text})
    assert len(encode(Batch("r", params=((key, text),)))) - nothing <= size
    assert len(encode(Batch("r", tags=((key, text),)))) - nothing <= size


@given(_RECORDS)
def test_batches_are_filled(records: list[Metrics | Params | Tags]) -> None:
    """Within generous limits each kind takes one batch."""
    assert len(list(batches("r", records))) == len({type(r) for r in records if _has_items(r)})


def _has_items(record: Metrics | Params | Tags) -> bool:
    return isinstance(record, Metrics) or bool(
        record.params if isinstance(record, Params) else record.tags
    )


@given(_RECORDS)
def test_halves_hold_the_whole(records: list[Metrics | Params | Tags]) -> None:
    """Two halves together are the batch, and neither is empty when it has two items or more."""
    for batch in batches("r", records):
        first, second = batch.halves()
        assert first.metrics + second.metrics == batch.metrics
        assert first.params + second.params == batch.params
        assert first.tags + second.tags == batch.tags
        assert first.run_id == second.run_id == "r"
        assert len(batch) == 1 or (len(first) > 0 and len(second) > 0)


def test_a_point_that_is_not_a_number_collapses_too() -> None:
    """The same NaN point given twice is sent once, although NaN equals nothing."""
    record = Metrics(1, ("loss",), (float("nan"),), 3, 10)
    again = replace(record, values=(float("nan"),))
    (batch,) = batches("r", [record, again])
    assert len(batch) == 1


def test_an_item_beyond_the_byte_limit_goes_alone() -> None:
    """A huge value is sent by itself instead of being dropped or taking others with it."""
    params = {"a": "1", "huge": "x" * MLFLOW.bytes, "z": "2"}
    sent = list(batches("r", [Params(1, params)]))
    assert sent == [Batch("r", params=(pair,)) for pair in params.items()]


def test_when_values_are_due() -> None:
    """Values are due when there are enough, when one is old, or on demand."""
    pace = Pace(values=10, seconds=1.0)
    assert pace.due(10, 0.0)
    assert pace.due(1, 1.0)
    assert pace.due(1, 0.0, flush=True)
    assert not pace.due(9, 0.9)
