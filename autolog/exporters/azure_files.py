"""Files of a run in a workspace: announced to the run's history, then put into its storage.

What the service expects is what ``azureml-mlflow`` sends; its artifacts are written once.
"""

from __future__ import annotations

import filecmp
import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
_PASSING = frozenset({408, 429, *range(500, 600)})
"""Statuses of a storage that will take the same request later."""


@dataclass(slots=True)
class _Place:
    """Where a file is to be put."""

    path: str
    address: str
    """In the storage, with the permission to write there."""
    blocks: list[str] = field(default_factory=list)
    """The names of those that are put."""


class Uploads:
    """Puts files into the storage of a workspace, and goes on with one that was cut.

    The permission to do so is nowhere but in this object.
    """

    def __init__(self) -> None:
        self._begun: dict[Path, _Place] = {}

    def upload(self, send: Send, file: Path, path: str) -> str:
        """Store a file in a run; where it stands there.

        A path that is taken by the same content is done; by another, or by none, a number is put
        before the suffix.
        Raises `Retryable`, after which another call goes on with the file, and `Rejected`.
        """
        place = self._begun.get(file) or _free_place(send, file, path)
        if place is None:
            return path
        self._begun[file] = place
        try:
            _put(place, file)
        except Retryable as problem:
            if problem.status is not None and problem.status not in _PASSING:
                del self._begun[file]  # the permission is over, or all is there
            raise
        del self._begun[file]
        return place.path


def _free_place(send: Send, file: Path, path: str) -> _Place | None:
    """A path that nobody has taken; None where the wanted one, or one like it, has the content."""
    taken = PurePosixPath(path)
    number = 1
    while (address := _announced(send, path)) is None:
        if _is_there(send, file, path):
            return None
        number += 1
        path = str(taken.with_name(f"{taken.stem}-{number}{taken.suffix}"))
    return _Place(path, address)


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


def _put(place: _Place, file: Path) -> None:
    with file.open("rb") as content:
        if file.stat().st_size <= _SINGLE:
            headers = {"x-ms-blob-type": "BlockBlob", "If-None-Match": "*"}
            _asked("PUT", place.address, content.read(), headers).close()
            return
        content.seek(len(place.blocks) * _BLOCK)
        while part := content.read(_BLOCK):
            name = hashlib.sha256(f"{len(place.blocks):08d}".encode()).hexdigest()
            _asked("PUT", f"{place.address}&comp=block&blockid={name}", part).close()
            place.blocks.append(name)
    listed = "".join(f"<Latest>{escape(name)}</Latest>" for name in place.blocks)
    body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'
    _asked("PUT", f"{place.address}&comp=blocklist", body.encode()).close()


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
        reason, after = f"{reply.status_code} from {place}", wire.retry_after(reply)
        raise Retryable(reason, after, status=reply.status_code)
    return reply
