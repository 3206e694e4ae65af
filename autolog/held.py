"""Runs that a server refuses are set aside: each becomes a small journal of its own.

``held/<run key>/`` has the format of every journal, so `autolog sync` sends it like any other once
the server's objection is gone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from autolog import records
from autolog.journal import layout
from autolog.records import Artifact, Metrics, Record, RunStart


def keys(folder: Path) -> set[str]:
    """The keys of a journal's runs that are set aside."""
    try:
        return set(os.listdir(folder / layout.HELD))
    except OSError:
        return set()


def set_aside(folder: Path, start: RunStart, content: Iterable[Record]) -> None:
    """Append records of a run to its own journal beside the others of that run."""
    place = folder / layout.HELD / start.key
    body = b"".join(_frames(start, content))
    if not place.is_dir():
        (place / layout.FILES).mkdir(mode=0o700, parents=True)
        shutil.copyfile(folder / layout.META, place / layout.META)
        body = layout.MAGIC + body
    for record in content:
        if isinstance(record, Artifact):
            _move(folder / layout.FILES, place / layout.FILES, record.file)
    path = place / layout.segment_name(0)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
        file.write(body)


def _frames(start: RunStart, content: Iterable[Record]) -> Iterable[bytes]:
    yield layout.frame(records.encode(start))
    for record in content:
        if isinstance(record, Metrics):
            yield layout.frame(records.encode_keys(0, record.keys))
            pack = records.metrics_packer(len(record.keys))
            yield layout.frame(
                pack(records.METRICS, record.run, 0, record.timestamp, record.step, *record.values)
            )
        elif not isinstance(record, RunStart):
            yield layout.frame(records.encode(record))


def _move(source: Path, target: Path, file: str) -> None:
    if file != os.path.normpath(file) or file.startswith(("..", "/")):
        return
    (target / file).parent.mkdir(mode=0o700, exist_ok=True)
    try:
        os.replace(source / file, target / file)
    except OSError:
        return
