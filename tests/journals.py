"""Journals for tests: made by the real writer, or laid out byte by byte."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support import tmpfs

from autolog import records
from autolog.journal import layout
from autolog.journal.owner import Life, this_process
from autolog.journal.reader import Reader
from autolog.journal.writer import Journal
from autolog.records import Metrics, Record, RunStart

KEY = "0123456789abcdef" * 2
TARGET = "http://127.0.0.1:9"


def open_journal(folder: Path, **given: Any) -> Journal:
    """A journal of this process with small segments, unless `given` says otherwise."""
    options: dict[str, Any] = {"segment_size": 1 << 16, "limit": 1 << 30, "wake": lambda: None}
    return Journal(folder, {"target": TARGET}, **{**options, **given})


def bodies(folder: Path, owner: Life = Life.DEAD) -> list[bytes]:
    """Every body that a reader finds in a journal."""
    return [frame.body for frame in Reader(folder).frames(owner)]


def appended(folder: Path, journal: Journal) -> list[bytes]:
    """Every body published by a living journal; nothing of it may be damaged."""
    reader = Reader(folder)
    found = [frame.body for frame in reader.frames(Life.ALIVE)]
    assert reader.damage == []
    assert reader.position == journal.tail
    return found


def number(value: int) -> bytes:
    """A frame that holds a number."""
    return layout.frame(value.to_bytes(8, "little"))


def numbers(found: list[bytes]) -> list[int]:
    """The numbers of bodies."""
    return [int.from_bytes(body, "little") for body in found]


def read_to_the_end(reader: Reader, owner: Life) -> list[bytes]:
    """What rounds of reading find until several of them find nothing more."""
    found: list[bytes] = []
    idle = 0
    while idle < 3:
        before = reader.position
        found += [frame.body for frame in reader.frames(owner)]
        idle = 0 if reader.position != before else idle + 1
    return found


def copy_changed(source: Path, target: Path) -> None:
    """Copy what rsync would: files of another size or time, in whole seconds, than their copy."""
    for path in (source, *sorted(source.rglob("*"))):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        elif not copy.exists() or _looks(copy) != _looks(path):
            shutil.copy2(path, copy)


def _looks(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, int(status.st_mtime)


def lay_out(folder: Path, segments: Sequence[Sequence[bytes]]) -> None:
    """Write a whole journal of a dead owner, with room left in its last segment."""
    folder.mkdir(parents=True)
    for number, contents in enumerate(segments):
        content = layout.MAGIC + b"".join(map(layout.frame, contents))
        is_last = number == len(segments) - 1
        tail = layout.position(number, len(content))
        content += bytes(100) if is_last else layout.seal(number + 1)
        (folder / layout.segment_name(number)).write_bytes(content)
        if is_last:
            write_control(folder, tail)
    (folder / layout.OWNER_LOCK).touch()
    write_meta(folder)


def write_control(folder: Path, tail: int, flush: int = 0) -> None:
    """Write a control page."""
    page = layout.MAGIC + struct.pack("<QQ", tail, flush)
    (folder / layout.CONTROL).write_bytes(page.ljust(layout.CONTROL_SIZE, b"\0"))


def write_meta(folder: Path, **changes: Any) -> None:
    """Describe a journal as its writer would."""
    owner = this_process(folder / layout.OWNER_LOCK).as_json()
    meta = {"format": layout.FORMAT, "created": 0, "owner": owner, "target": TARGET}
    (folder / layout.META).write_text(json.dumps({**meta, **changes}))


def run_start(run: int = 1, **changes: Any) -> RunStart:
    """The start of a run."""
    given: dict[str, Any] = {
        "run": run,
        "key": KEY,
        "name": "a run",
        "experiment": None,
        "experiment_id": None,
        "tags": {},
        "parent_key": None,
        "run_id": None,
        "owned": True,
        "timestamp": 1,
    }
    return RunStart(**{**given, **changes})


def encoded(record: Record, keys: int = 1) -> bytes:
    """The body of any record; metrics use the names declared under the number `keys`."""
    if not isinstance(record, Metrics):
        return records.encode(record)
    pack = records.metrics_packer(len(record.keys))
    return pack(records.METRICS, record.run, keys, record.timestamp, record.step, *record.values)


def losses(count: int, run: int = 1) -> list[bytes]:
    """The bodies of a run with one metric: its start, the name, and `count` values."""
    return [
        records.encode(run_start(run)),
        records.encode_keys(1, ("loss",)),
        *(encoded(Metrics(run, ("loss",), (float(i),), i, 1000 + i)) for i in range(count)),
    ]


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A filesystem of its own that is soon full; skips the test where mounting is forbidden."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(tmpfs(place, size))
        except OSError as error:
            pytest.skip(str(error))
        yield place


def each_flip(path: Path, start: int, stop: int) -> Iterator[int]:
    """Damage one byte of a file after the other, each alone: its lowest bit, and all its bits."""
    whole = path.read_bytes()
    for offset in range(start, stop):
        for mask in (0x01, 0xFF):
            damaged = bytearray(whole)
            damaged[offset] ^= mask
            path.write_bytes(damaged)
            yield offset
    path.write_bytes(whole)
