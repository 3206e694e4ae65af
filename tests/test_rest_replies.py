"""What requests to an MLflow server say, and what each reply means."""

from __future__ import annotations

import errno
import json
import math
import socket
import struct
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from answering import Answer, AnsweringServer, refusing
from hypothesis import given
from hypothesis import strategies as st

from autolog.batching import Batch, Metric
from autolog.exporters import Rejected, Retryable, RunRefused, exporter_for, rest
from autolog.exporters.wire import encode
from autolog.records import RunStart

_BATCH = Batch("r", metrics=(Metric("loss", 0.5, 1, 0),))
_START = RunStart(1, "a" * 32, "name", None, None, {}, None, None, True, 1)
_LIVE = Answer(body=b'{"run": {"info": {"run_id": "r", "lifecycle_stage": "active"}}}')
_DELETED = Answer(body=b'{"run": {"info": {"run_id": "r", "lifecycle_stage": "deleted"}}}')
_HTML = b"<html>log in, please</html>"

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
_INT64 = st.integers(-(2**63), 2**63 - 1)
_METRICS = st.lists(st.builds(Metric, _TEXTS, st.floats(), _INT64, _INT64))
_PAIRS = st.lists(st.tuples(_TEXTS, _TEXTS))


def _export(*answers: Answer) -> None:
    with AnsweringServer(*answers) as server:
        exporter_for(server.url, {}).export(_BATCH)


def _bits(value: float | str) -> bytes:
    return struct.pack("<d", math.nan if value == "NaN" else float(value))


@given(_TEXTS, _METRICS, _PAIRS, _PAIRS)
def test_a_body_is_what_was_given(
    run_id: str,
    metrics: list[Metric],
    params: list[tuple[str, str]],
    tags: list[tuple[str, str]],
) -> None:
    """A body is strict JSON with every name, bit of a value, step and time; never a bare NaN."""
    sent = encode(Batch(run_id, tuple(metrics), tuple(params), tuple(tags)))
    read = json.loads(sent, parse_constant=lambda name: pytest.fail(f"a bare {name}"))
    assert read["run_id"] == run_id
    assert [(m["key"], m["timestamp"], m["step"]) for m in read["metrics"]] == [
        (m.key, m.timestamp, m.step) for m in metrics
    ]
    for metric, back in zip(metrics, read["metrics"], strict=True):
        assert isinstance(back["value"], float) is math.isfinite(metric.value)
        assert math.isnan(metric.value) or _bits(back["value"]) == _bits(metric.value)
    assert [(pair["key"], pair["value"]) for pair in read["params"]] == params
    assert [(pair["key"], pair["value"]) for pair in read["tags"]] == tags


@pytest.mark.parametrize(
    "batch",
    [
        Batch("r", metrics=(Metric("loss", 0.5, 1, 2**63),)),
        Batch("r", metrics=(Metric("loss", 0.5, -(2**63) - 1, 1),)),
        Batch("r", metrics=(Metric("loss", 0.5, 1, 1.5),)),  # type: ignore[arg-type]
        Batch("r", metrics=(Metric("loss", "0.5", 1, 1),)),  # type: ignore[arg-type]
        Batch("r", metrics=(Metric("\ud800", 0.5, 1, 1),)),
        Batch("r", params=(("key", "\udcff"),)),
    ],
)
def test_what_mlflow_would_store_by_half_is_refused(batch: Batch) -> None:
    """Steps beyond int64, fractions, text for numbers and broken Unicode are never sent."""
    with pytest.raises(Rejected):
        encode(batch)


def test_a_json_object_means_stored() -> None:
    """200 with a JSON object is the one reply that counts as stored."""
    _export(Answer())


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, _HTML, {"Content-Type": "text/html"}),
        Answer(200, b""),
        Answer(200, b"[]"),
        Answer(204, b""),
        Answer(302, b"", {"Location": "/login"}),
        Answer(400, _HTML),
        Answer(404, _HTML),
        Answer(404, b'{"detail": "Not Found"}'),
        refusing(404, "ENDPOINT_NOT_FOUND"),
        refusing(401, "UNAUTHENTICATED"),
        refusing(403, "PERMISSION_DENIED"),
        Answer(407),
        Answer(408),
        refusing(429, "REQUEST_LIMIT_EXCEEDED"),
        Answer(502, _HTML),
        refusing(503, "TEMPORARILY_UNAVAILABLE"),
        Answer(504),
    ],
    ids=lambda answer: f"{answer.status} {answer.body[:20]!r}",
)
def test_trouble_on_the_way_keeps_the_data(answer: Answer) -> None:
    """Login pages, proxies, wrong addresses, missing rights and busy servers are tried again."""
    with pytest.raises(Retryable) as caught:
        _export(answer)
    assert not caught.value.suspect


@pytest.mark.parametrize(
    "answer",
    [refusing(500, "INTERNAL_ERROR"), Answer(500, _HTML), refusing(409, "ABORTED")],
    ids=["500 of MLflow", "500 in HTML", "409 of MLflow"],
)
def test_a_server_error_puts_the_content_under_suspicion(answer: Answer) -> None:
    """A 500 is tried again, and marked as one that the content may have caused."""
    with pytest.raises(Retryable) as caught:
        _export(answer)
    assert caught.value.suspect


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("7", 7.0, 7.0),
        ("in an hour", 3000, 3600),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0, 0.0),
    ],
)
def test_the_wait_that_a_server_asks_for_is_told(text: str, least: float, most: float) -> None:
    """A Retry-After counts as seconds, whether it is a number or a date, past ones included."""
    date = format_datetime(datetime.now(timezone.utc) + timedelta(hours=1), usegmt=True)
    with pytest.raises(Retryable) as caught:
        _export(Answer(429, b"", {"Retry-After": date if text == "in an hour" else text}))
    assert caught.value.after is not None
    assert least <= caught.value.after <= most


@pytest.mark.parametrize("text", ["soon", "-3", "1.5", "", "99999999999999999999 GMT"])
def test_a_senseless_wait_is_ignored(text: str) -> None:
    """A Retry-After that is neither number nor date does no harm."""
    with pytest.raises(Retryable) as caught:
        _export(Answer(503, b"", {"Retry-After": text}))
    assert caught.value.after is None


def test_a_final_refusal_has_the_servers_words() -> None:
    """A 400 of MLflow is final and carries its message and code, once the run is known to live."""
    with pytest.raises(Rejected, match="bad name") as caught:
        _export(refusing(400, "INVALID_PARAMETER_VALUE", "bad name"), _LIVE)
    assert (caught.value.code, caught.value.limit) == ("INVALID_PARAMETER_VALUE", None)


def test_the_size_a_server_takes_is_told() -> None:
    """A refusal that names a limit, as Azure ML's do, hands on the number."""
    message = "A field is over the size limit. FieldName=Parameters, Limit=200, Size=210."
    with pytest.raises(Rejected) as caught:
        _export(refusing(400, "INVALID_PARAMETER_VALUE", message), _LIVE)
    assert caught.value.limit == 200


def test_a_body_too_large_is_final_from_anyone() -> None:
    """A proxy's 413 is a refusal of this size, so that the caller sends less at once."""
    with pytest.raises(Rejected):
        _export(Answer(413, _HTML), _LIVE)


@pytest.mark.parametrize(
    "answer", [refusing(404, "RESOURCE_DOES_NOT_EXIST"), _DELETED], ids=["unknown", "deleted"]
)
def test_a_refusal_for_the_run_is_told_apart(answer: Answer) -> None:
    """When a batch is refused because its run is gone, the run is what is refused."""
    with pytest.raises(RunRefused):
        _export(refusing(400, "INVALID_PARAMETER_VALUE"), answer)


def test_a_redirect_that_drops_the_body_is_no_success() -> None:
    """A POST that a redirect turned into a GET stored nothing, however well that is answered."""
    with pytest.raises(Retryable, match="redirect"):
        _export(Answer(301, b"", {"Location": "/elsewhere"}), Answer())


@pytest.mark.parametrize("body", [b"{}", b'{"run": 1}', b'{"runs": [1]}', b'{"runs": 7}'])
def test_replies_of_another_kind_of_server_keep_the_data(body: bytes) -> None:
    """JSON without the fields of MLflow is no reason to give a run up, nor to crash."""
    with AnsweringServer(Answer(body=body)) as server, pytest.raises(Retryable):
        exporter_for(server.url, {}).open_run(_START, None)


def test_a_refused_connection_keeps_the_data() -> None:
    """Nobody listening is tried again, and the reason is said in few words."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(Retryable) as caught:
        exporter_for(f"http://u:secret@127.0.0.1:{port}", {}).export(_BATCH)
    assert caught.value.reason == (
        f"no answer from http://127.0.0.1:{port}: [Errno {errno.ECONNREFUSED}] Connection refused"
    )


@pytest.fixture
def black_hole() -> Iterator[str]:
    """The address of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_black_hole_ends_in_a_timeout(black_hole: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts and never answers is given up on for now."""
    monkeypatch.setattr(rest, "_READ_SECONDS", 0.2)
    with pytest.raises(Retryable, match="timed out"):
        exporter_for(black_hole, {}).export(_BATCH)


def test_a_reply_cut_short_keeps_the_data() -> None:
    """A connection that ends in the middle of the reply is tried again."""
    with pytest.raises(Retryable):
        _export(Answer(200, b"{}", {"Content-Length": "50"}))


@pytest.mark.parametrize("target", ["http://", "http://[::1", "http://a b/", "http://x:99999"])
def test_an_impossible_address_keeps_the_data(target: str) -> None:
    """An address that cannot exist is a matter of configuration: kept, not raised at the caller."""
    with pytest.raises(Retryable):
        exporter_for(target, {}).export(_BATCH)
