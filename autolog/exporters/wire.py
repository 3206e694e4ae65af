"""The JSON that goes to MLflow's REST API, and what comes back. Pure but for the clock."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from autolog.exporters import Rejected, Retryable, refusal
from autolog.exporters.tracking import Found

if TYPE_CHECKING:
    import requests

    from autolog.batching import Batch, Metric
    from autolog.records import Link

_INT64 = 1 << 63
_QUOTED_REPLY = 1000


def encode(batch: Batch) -> bytes:
    """The body of a log-batch request. Raises `Rejected` for what JSON or MLflow cannot hold.

    Strict, because MLflow answers 200 to a bare NaN, a fractional step or one beyond int64, and
    stores only what stood before it.
    """
    try:
        names = {key: _text(key) for key in {metric.key for metric in batch.metrics}}
        metrics = ",".join([_metric(names[metric.key], metric) for metric in batch.metrics])
        params = ",".join([_pair(*pair) for pair in batch.params])
        tags = ",".join([_pair(*pair) for pair in batch.tags])
        return (
            f'{{"run_id":{_text(batch.run_id)},"metrics":[{metrics}],'
            f'"params":[{params}],"tags":[{tags}]}}'
        ).encode()
    except (TypeError, ValueError) as error:
        raise Rejected(f"cannot be sent as JSON: {error}") from error


def _metric(name: str, metric: Metric) -> str:
    _, value, timestamp, step, link = metric
    if not (-_INT64 <= step < _INT64 and -_INT64 <= timestamp < _INT64):
        raise ValueError(f"step {step} or timestamp {timestamp} is beyond 64 bits")
    linked = "" if link is None else _linked(link)
    numbers = f'"value":{_number(value)},"timestamp":{timestamp:d},"step":{step:d}'
    return f'{{"key":{name},{numbers}{linked}}}'


def _linked(link: Link) -> str:
    fields = link._asdict().items()
    return "".join(f',"{field}":{_text(value)}' for field, value in fields if value is not None)


def _number(value: float) -> str:
    if math.isfinite(value):
        return float.__repr__(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def _pair(key: str, value: str) -> str:
    return f'{{"key":{_text(key)},"value":{_text(value)}}}'


def _text(text: str) -> str:
    # Not escaped to ASCII: a lone surrogate then fails in encode() instead of on the server.
    return json.dumps(text, ensure_ascii=False)


def body(content: Mapping[str, object]) -> bytes:
    """The body of any other request. Raises `Rejected` for text that is no Unicode."""
    try:
        return json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Rejected(f"cannot be sent as JSON: {error}") from error


def inputs(text: str) -> dict[str, Any]:
    """The content of an `Inputs` record. Raises `Rejected` for what is none."""
    try:
        given = json.loads(text)
        return {key: list(given.get(key, ())) for key in ("datasets", "models")}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Rejected(f"no inputs of a run: {error}") from error


def content(reply: requests.Response, method: str) -> dict[str, Any]:
    """The JSON object of a reply that says yes; raises what any other reply means.

    200 alone is no yes: login pages and proxies answer it with HTML, and a redirect may have turned
    a POST into a GET that stores nothing.
    """
    where = f"{reply.status_code} from {reply.url.partition('?')[0]}"
    if reply.request.method != method:
        raise Retryable(f"{where}, where a redirect turned {method} into {reply.request.method}")
    try:
        said = json.loads(reply.content)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        said = {}
    elif reply.status_code == 200:
        return said
    code = said.get("error_code")
    raise refusal(
        reply.status_code,
        code if isinstance(code, str) else None,
        _message(said) or f"{where}: {_quoted(reply)}",
        retry_after(reply),
    )


def _message(said: Mapping[str, Any]) -> str:
    """The words of an error: MLflow's, or one level down those of Azure's services."""
    for key, field in (("message", None), ("Error", "Message"), ("error", "message")):
        found = said.get(key)
        if field is not None:
            found = found.get(field) if isinstance(found, dict) else None
        if isinstance(found, str) and found:
            return found
    return ""


def _quoted(reply: requests.Response) -> str:
    return reply.content[:_QUOTED_REPLY].decode("utf-8", "replace").strip()


def retry_after(reply: requests.Response) -> float | None:
    """Seconds of a reply's Retry-After, which is a number of them or an HTTP date."""
    text = reply.headers.get("Retry-After", "")
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def found(reply: object, *path: str | int) -> Found:
    """The run or experiment whose id is at the end of a path."""
    *parents, _ = path
    return Found(str(at(reply, *path)), at(reply, *parents).get("lifecycle_stage") == "deleted")


def at(reply: Any, *path: str | int) -> Any:
    """What a reply has at the end of a path. Raises `Retryable` where it has nothing."""
    try:
        for field in path:
            reply = reply[field]
    except (LookupError, TypeError):
        where = ".".join(map(str, path))
        raise Retryable(f"the reply has no {where}: is this an MLflow server?") from None
    return reply
