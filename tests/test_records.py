"""Records and their bytes: what goes in comes out, and anything else is `Malformed`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journals import KEY, encoded, run_start

from autolog import records
from autolog.records import (
    Artifact,
    Decoder,
    Inputs,
    Kind,
    Link,
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
PART = st.text(st.characters(exclude_characters="/"), min_size=1, max_size=8).filter(
    lambda part: part not in (".", "..", "..json", "...json")
)
PATH = st.lists(PART, min_size=1, max_size=3).map("/".join)
HEX = st.text("0123456789abcdef", min_size=32, max_size=32)

LINK = st.builds(Link, st.none() | TEXT, st.none() | TEXT, st.none() | TEXT)

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
    st.builds(
        Artifact,
        run=UINT32,
        file=PATH,
        path=PATH,
        kind=st.sampled_from([Kind.FILE, Kind.MODEL, Kind.REGISTRATION]),
    ),
    st.builds(Inputs, run=UINT32, content=TEXT, by_hooks=st.booleans()),
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
    metrics=st.dictionaries(TEXT, st.tuples(st.floats(), st.none() | LINK), max_size=20),
)
def test_metrics_come_back_as_they_were(
    run: int,
    number: int,
    step: int,
    timestamp: int,
    metrics: dict[str, tuple[float, Link | None]],
) -> None:
    """Names and links once, then numbers bit by bit: NaN, infinities and negative zero too."""
    decoder, keys = Decoder(), tuple(metrics)
    values = tuple(value for value, _ in metrics.values())
    links = tuple(link for _, link in metrics.values())
    assert decoder.decode(records.encode_keys(number, keys, links)) is None
    body = encoded(Metrics(run, keys, values, step, timestamp, links), number)
    found = decoder.decode(body)
    assert isinstance(found, Metrics)
    assert found == Metrics(run, keys, found.values, step, timestamp, links if any(links) else ())
    assert encoded(found, number) == body


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


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "../x"},
        {"file": "/x"},
        {"file": ""},
        {"path": "a/../x"},
        {"path": "/x"},
        {"file": "...json", "kind": Kind.MODEL},
        {"file": "1/...json", "kind": Kind.MODEL},
    ],
)
def test_an_artifact_that_leads_elsewhere_is_malformed(changes: dict[str, str]) -> None:
    """Its file, and the folder of a model, are below those of the journal; its path in the run."""
    good: dict[str, str] = {"file": "1/model.json", "path": "m", "kind": Kind.MODEL}
    assert Decoder().decode(records.encode(Artifact(1, **good))) == Artifact(1, **good)
    with pytest.raises(Malformed, match="leads elsewhere"):
        Decoder().decode(records.encode(Artifact(1, **{**good, **changes})))
