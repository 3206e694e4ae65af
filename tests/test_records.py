"""Records and their bytes: what goes in comes out, and anything else is `Malformed`."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journals import KEY, encoded, run_start

from autolog import records
from autolog.records import (
    Artifact,
    Decoder,
    Malformed,
    Metrics,
    Params,
    Record,
    RunEnd,
    RunStart,
    Tags,
)

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
UINT32 = st.integers(0, (1 << 32) - 1)
TEXT = st.text(st.characters(), max_size=30)  # lone surrogates too, which file names may hold
TEXTS = st.dictionaries(TEXT, TEXT, max_size=5)
HEX = st.text("0123456789abcdef", min_size=32, max_size=32)

JSON_RECORDS: st.SearchStrategy[Record] = st.one_of(
    st.builds(
        RunStart,
        run=UINT32,
        key=HEX,
        name=TEXT,
        experiment=st.none() | TEXT,
        experiment_id=st.none() | TEXT,
        tags=TEXTS,
        parent_key=st.none() | HEX,
        run_id=st.none() | TEXT,
        owned=st.booleans(),
        timestamp=INT64,
    ),
    st.builds(Params, run=UINT32, params=TEXTS, changed=TEXTS),
    st.builds(Tags, run=UINT32, tags=TEXTS),
    st.builds(Artifact, run=UINT32, file=TEXT, path=TEXT),
    st.builds(RunEnd, run=UINT32, status=TEXT, timestamp=INT64),
)


@given(JSON_RECORDS)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    """Every record but metrics is its own JSON, whatever texts it holds."""
    assert Decoder().decode(records.encode(record)) == record


@given(
    run=UINT32,
    number=UINT32,
    step=INT64,
    timestamp=INT64,
    metrics=st.dictionaries(TEXT, st.floats(allow_nan=False), max_size=20),
)
def test_metrics_come_back_as_they_were(
    run: int, number: int, step: int, timestamp: int, metrics: dict[str, float]
) -> None:
    """Names once, then numbers bit by bit: infinities and negative zero too."""
    decoder = Decoder()
    keys, values = tuple(metrics), tuple(metrics.values())
    assert decoder.decode(records.encode_keys(number, keys)) is None
    found = decoder.decode(encoded(Metrics(run, keys, values, step, timestamp), number))
    assert found == Metrics(run, keys, values, step, timestamp)
    assert isinstance(found, Metrics)
    assert struct.pack(f"{len(values)}d", *found.values) == struct.pack(f"{len(values)}d", *values)


def test_nan_is_a_value() -> None:
    """A loss that is no number is a value like any other."""
    decoder = Decoder()
    decoder.decode(records.encode_keys(1, ("loss",)))
    found = decoder.decode(encoded(Metrics(1, ("loss",), (math.nan,), 0, 0)))
    assert isinstance(found, Metrics)
    assert math.isnan(found.values[0])


def test_names_hold_for_one_decoder() -> None:
    """Each segment declares its names again, so that it can be read without the others."""
    Decoder().decode(records.encode_keys(1, ("loss",)))
    with pytest.raises(Malformed, match="KeyError"):
        Decoder().decode(encoded(Metrics(1, ("loss",), (1.0,), 0, 0)))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_malformed(body: bytes) -> None:
    """No other exception comes out, whatever the bytes are."""
    decoder = Decoder()
    decoder.decode(records.encode_keys(0, ("a",)))
    for kind in range(10):
        for content in (body, bytes([kind]) + body):
            try:
                record = decoder.decode(content)
            except Malformed:
                continue
            assert record is None or isinstance(record, Record)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "short"},
        {"key": KEY.upper()},
        {"key": f"../../../../{KEY}"},
        {"key": f"{KEY}\n"},
        {"parent_key": "../x"},
        {"owned": 1},
        {"timestamp": 1.5},
        {"run": "1"},
        {"run_id": 5},
        {"tags": {"a": None}},
        {"tags": ["a"]},
        {"name": None},
    ],
)
def test_a_field_of_another_type_is_malformed(changes: dict[str, object]) -> None:
    """The types that a record declares are checked when it is read; a key names a folder."""
    body = records.encode(run_start())
    assert Decoder().decode(body) == run_start()
    with pytest.raises(Malformed):
        Decoder().decode(records.encode(run_start(**changes)))
