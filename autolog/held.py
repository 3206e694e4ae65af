"""Runs that a server refuses are set aside: each becomes a small journal of its own.

``held/<run key>/`` has the format of every journal, so `autolog sync` sends it like any other once
the server's objection is gone.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from autolog import records
from autolog.journal import files, layout, progress
from autolog.journal.reader import Reader
from autolog.records import Artifact, Metrics, Record, RunStart


def keys(folder: Path) -> set[str]:
    """The keys of a journal's runs of which something is set aside.

    A folder without a segment is what a full disk has left of the attempt.
    """
    try:
        places = list((folder / layout.HELD).iterdir())
        return {place.name for place in places if Reader(place).segments()}
    except OSError:
        return set()


def set_aside(folder: Path, start: RunStart, content: Sequence[Record]) -> None:
    """Add records of a run to its own journal beside the others of that run.

    They make a segment that is there whole or not at all, however this ends.
    Raises `OSError` when there is no room for it.
    """
    place = folder / layout.HELD / start.key
    (place / layout.FILES).mkdir(mode=0o700, parents=True, exist_ok=True)
    files.replace(place / layout.META, files.read(folder / layout.META))
    # The segments before the cursor are gone once they are sent.
    following, _ = layout.split(progress.load(place).cursor)
    number = max(following, 1 + max(Reader(place).segments(), default=-1))
    frames = b"".join(_frames(start, content))
    segment = layout.MAGIC + frames + layout.seal(number + 1)
    files.replace(place / layout.segment_name(number), segment)
    for record in content:
        if isinstance(record, Artifact) and not record.leads_elsewhere:
            for each in record.places:
                _move(folder / layout.FILES, place / layout.FILES, each)


def drop(folder: Path, key: str) -> None:
    """Forget a run without content that was left before the server took it: there is none."""
    shutil.rmtree(folder / layout.HELD / key, ignore_errors=True)


def release(place: Path) -> None:
    """Drop a run's own journal, which the server now has, and count it as stored where it was."""
    folder = place.parent.parent
    account = progress.load(folder)
    for reason, values in account.held.pop(place.name, {}).items():
        account.acknowledged += values
        left = account.rejected.pop(reason, 0) - values
        if left > 0:
            account.rejected[reason] = left
    account.store(folder)
    shutil.rmtree(place)


def _frames(start: RunStart, content: Sequence[Record]) -> Iterator[bytes]:
    yield layout.frame(records.encode(start))
    for record in content:
        if isinstance(record, Metrics):
            yield layout.frame(records.encode_keys(0, record.keys, record.links))
            pack = records.metrics_packer(len(record.keys))
            yield layout.frame(
                pack(records.METRICS, record.run, 0, record.timestamp, record.step, *record.values)
            )
        elif not isinstance(record, RunStart):
            yield layout.frame(records.encode(record))


def _move(source: Path, target: Path, file: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # no file can have such a name
        (target / file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (source / file).replace(target / file)
