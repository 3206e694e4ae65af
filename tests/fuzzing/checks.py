"""What must hold of every journal folder, whatever bytes its files have: `check` says."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import sysconfig
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autolog import held
from autolog.feed import Feed, Meta, read_meta
from autolog.journal import layout, progress
from autolog.journal.owner import Life, this_process
from autolog.journal.reader import Reader
from autolog.records import Artifact, Kind, Record, RunEnd, RunStart, model_folder
from tests.fuzzing.packed import Packed

_SECRET = b"of somebody else"
_AT_HOME, _FINISH, _COMMIT_EACH = 0x04, 0x08, 0x10
_OPENING = ("open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir")
_ELSEWHERE = ("/etc/machine-id", sysconfig.get_path("stdlib"))
"""What an owner is told by; Python loads the codec of a text when there is one."""


def in_memory() -> tempfile.TemporaryDirectory[str]:
    """A folder for `Place`: a disk would take ten times as long."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)


class Place:
    """A folder for one journal after the other, and a file beside it that none may reach."""

    def __init__(self, parent: Path) -> None:
        self.folder, self.secret = parent / "journal", parent / "secret"
        frame = layout.frame(_SECRET)
        self.secret.write_bytes(layout.MAGIC + frame)
        self._is_watched = False
        sys.addaudithook(self._audit)

    def check(self, packed: Packed) -> None:
        """Raise whatever a journal makes reading raise, and `AssertionError` for what is wrong."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / layout.FILES).mkdir(parents=True)
        packed.write(self.folder, self.secret)
        with self._watched():
            _check_frames(self.folder, packed)
            meta = read_meta(self.folder)
            if meta is not None:
                _check_feed(self.folder, packed, meta)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        self._is_watched = True
        try:
            yield
        finally:
            self._is_watched = False

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python says here what it is about to do to files."""
        if self._is_watched and event in _OPENING and not isinstance(arguments[0], int):
            path = Path(os.path.normpath(arguments[0]))
            if not any(map(path.is_relative_to, (self.folder, *_ELSEWHERE))):
                raise AssertionError(f"{event} of {path}")


# -- frames ----------------------------------------------------------------------------------------


def _check_frames(folder: Path, packed: Packed) -> None:
    """What stands whole before the first damage is read, and damage is told."""
    tail, owner, segments = _tail(packed), _owner(packed), packed.segments()
    end = tail if tail is not None and owner is Life.ALIVE else 1 << 64
    whole, stop = _whole_frames(segments, 0, end)
    reader = Reader(folder)
    found = _read_to_the_end(reader, owner, packed)
    told = [*reader.damage, *([reader.gap] if reader.gap else [])]
    assert found[: len(whole)] == whole
    assert bool(told) == _is_lost(segments, stop, tail), (stop, told)
    if told:
        assert told[0].position == stop
    else:
        assert len(found) == len(whole)
    content = b"".join(segments.values())
    assert all(layout.frame(body) in content for body in found)


def _read_to_the_end(reader: Reader, owner: Life, packed: Packed) -> list[bytes]:
    found: list[bytes] = []
    idle = 0
    for _ in range(_rounds(packed)):
        before = reader.position
        found += [frame.body for frame in reader.frames(owner)]
        # The reader looks at a place of a living owner twice before it judges.
        idle = 0 if reader.position != before else idle + 1
        if idle == 2:
            return found
    raise AssertionError("there is no end to the reading")


def _rounds(packed: Packed) -> int:
    """More rounds than any reading of so many bytes takes."""
    return 10 + sum(map(len, packed.segments().values()))


def _owner(packed: Packed) -> Life:
    return list(Life)[packed.choices % 3]


def _tail(packed: Packed) -> int | None:
    page = packed.content(layout.CONTROL) or b""
    is_sound = len(page) >= layout.CONTROL_SIZE and page.startswith(layout.MAGIC)
    return int.from_bytes(page[8:16], "little") if is_sound else None


def _whole_frames(
    segments: Mapping[int, bytes], position: int, end: int
) -> tuple[list[bytes], int]:
    """The bodies before the first place without a whole frame, and that place.

    By ``docs/journal-format.md`` and not by the code.
    """
    found: list[bytes] = []
    while position < end:
        segment, offset = position >> 32, position & 0xFFFFFFFF
        content = segments.get(segment, b"")
        if offset < 8:
            if content[:8] != b"autolog1":
                break
            position = segment << 32 | 8
            continue
        length = int.from_bytes(content[offset : offset + 4], "little")
        is_seal = length == 0xFFFFFFFF
        body = content[offset + 8 : offset + 8 + (4 if is_seal else length)]
        is_whole = len(body) == (4 if is_seal else length) > 0
        if not is_whole or zlib.crc32(body) != int.from_bytes(
            content[offset + 4 : offset + 8], "little"
        ):
            break
        following = int.from_bytes(body, "little")
        if is_seal and following <= segment:
            break
        position = following << 32 if is_seal else position + 8 + len(body)
        found += [] if is_seal else [body]
    return found, position


def _is_lost(segments: Mapping[int, bytes], stop: int, tail: int | None) -> bool:
    """Whether something was written at the place where reading stops."""
    if tail is not None:
        return stop < tail
    segment, offset = stop >> 32, stop & 0xFFFFFFFF
    header = segments.get(segment, b"")[offset : offset + 8] if offset >= 8 else b""
    magic = segments.get(segment, b"")[:8] if offset < 8 else b""
    is_later = any(n << 32 > stop and text[:8] == b"autolog1" for n, text in segments.items())
    return any(header) or any(magic) or is_later


# -- records ---------------------------------------------------------------------------------------


def _check_feed(folder: Path, packed: Packed, meta: Meta) -> None:
    """Reading ends, and every run that a dead owner left open does; the account reads back."""
    if packed.choices & _AT_HOME and not (folder / layout.OWNER_LOCK).is_symlink():
        (folder / layout.OWNER_LOCK).touch()
        meta = replace(meta, owner=this_process(folder / layout.OWNER_LOCK))
    owner = _owner(packed)
    feed = Feed(folder, meta, finish=bool(packed.choices & _FINISH))
    ended = {run for run in feed.progress.ended if isinstance(run, str)}
    records: dict[int, list[Record]] = {}
    for record in _read_feed(feed, owner, packed):
        if isinstance(record, RunStart):
            records[record.run] = []
        elif isinstance(record, Artifact):
            _check_artifact(feed, record)
        elif isinstance(record, RunEnd):
            ended.add(feed.start_of(record.run).key)
        records.setdefault(record.run, []).append(record)
    starts = {run: feed.start_of(run) for run in records}
    if owner is Life.DEAD:
        assert all(start.key in ended for start in starts.values() if start.owned)
    assert progress.load(folder) == feed.progress
    if not feed.held and records:
        run = min(records)
        _check_aside(folder, meta, starts[run], records[run])


def _read_feed(feed: Feed, owner: Life, packed: Packed) -> Iterator[Record]:
    position = 0
    for _ in range(_rounds(packed)):
        entries = feed.read(owner)
        if not entries:
            feed.commit(feed.position)
            return
        for entry in entries:
            assert position <= entry.position
            position = entry.position
            yield entry.record
        if packed.choices & _COMMIT_EACH:
            feed.commit(position)
    raise AssertionError("there is no end to the records")


def _check_artifact(feed: Feed, artifact: Artifact) -> None:
    """Only files of the journal are uploaded, or removed when they are."""
    files = feed.folder / layout.FILES
    spooled = feed.spooled(artifact.file)
    assert spooled is None or spooled.resolve().is_relative_to(files)
    model = Path(os.path.normpath(model_folder(str(files / artifact.file))))
    assert artifact.kind != Kind.MODEL or files in model.parents
    feed.queue_upload(feed.start_of(artifact.run).key, artifact.file, artifact.path, artifact.kind)


def _check_aside(folder: Path, meta: Meta, start: RunStart, content: list[Record]) -> None:
    """A run that is set aside is a journal with the same records."""
    held.set_aside(folder, start, content)
    aside = Feed(folder / layout.HELD / start.key, meta)
    found: list[Record] = []
    while entries := aside.read(Life.UNKNOWN):
        found += [entry.record for entry in entries]
    given = [record for record in content if not isinstance(record, RunStart)]
    assert repr(found) == repr([start, *given])  # NaN is not equal to itself
