"""Files of a run in a workspace: announced to the run's history, then put into its storage.

What the service expects is what ``azureml-mlflow`` sends; its artifacts are written once.
"""

from __future__ import annotations

import filecmp
import hashlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from xml.sax.saxutils import escape

import requests

from autolog.exporters import Retryable, wire

Send = Callable[[str, str, "bytes | None", "Mapping[str, str] | None"], dict[str, Any]]
"""Asks the service: method, path below the run, body, query."""

_SINGLE, _BLOCK = 64 << 20, 4 << 20
"""The largest file that goes in one request, and the parts of a larger one."""
_TIMEOUT = (5.0, 120.0)


def upload(send: Send, file: Path, path: str) -> str:
    """Store a file in a run; where it stands there.

    A path that is taken by the same content is done; by another, or by none, a number is put before
    the suffix.
    Raises `Retryable` and `Rejected`.
    """
    taken = PurePosixPath(path)
    number = 1
    while (address := _announced(send, path)) is None:
        if _is_there(send, file, path):
            return path
        number += 1
        path = str(taken.with_name(f"{taken.stem}-{number}{taken.suffix}"))
    _put(address, file)
    return path


def _announced(send: Send, path: str) -> str | None:
    """Where the content of a path is to be put; None where the path is taken."""
    reply = send("POST", "artifacts/batch/metadata", wire.body({"paths": [{"path": path}]}), None)
    if path in (reply.get("errors") or {}):
        return None
    return str(wire.at(reply, "artifactContentInformation", path, "contentUri"))


def _is_there(send: Send, file: Path, path: str) -> bool:
    reply = send("GET", "artifacts/contentinfo", None, {"path": path})
    try:
        stored = _asked("GET", str(wire.at(reply, "contentUri")))
    except Retryable as problem:
        if problem.status != 404:
            raise
        return False  # announced by somebody who did not come to put it
    with stored, tempfile.NamedTemporaryFile() as copy:
        for part in stored.iter_content(1 << 20):
            copy.write(part)
        copy.flush()
        return filecmp.cmp(copy.name, file, shallow=False)


def _put(address: str, file: Path) -> None:
    with file.open("rb") as content:
        if file.stat().st_size <= _SINGLE:
            headers = {"x-ms-blob-type": "BlockBlob", "If-None-Match": "*"}
            _asked("PUT", address, content.read(), headers).close()
            return
        names: list[str] = []
        while part := content.read(_BLOCK):
            name = hashlib.sha256(f"{len(names):08d}".encode()).hexdigest()
            _asked("PUT", f"{address}&comp=block&blockid={name}", part).close()
            names.append(name)
    listed = "".join(f"<Latest>{escape(name)}</Latest>" for name in names)
    body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'
    _asked("PUT", f"{address}&comp=blocklist", body.encode()).close()


def _asked(
    method: str, address: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> requests.Response:
    """A reply of the storage that says yes; the address holds its own permission."""
    place = address.partition("?")[0]
    try:
        reply = requests.request(
            method, address, data=body, headers=dict(headers or {}), timeout=_TIMEOUT, stream=True
        )
    except OSError as error:
        # Without the error's own words, which quote the address and its permission.
        raise Retryable(f"no answer from {place}: {type(error).__name__}") from None
    if reply.status_code >= 300:
        raise Retryable(f"{reply.status_code} from {place}", status=reply.status_code)
    return reply
