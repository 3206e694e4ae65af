"""`Feed`: one journal as the shipper sees it, from its bytes to its runs."""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from autolog import held
from autolog.journal import layout, progress
from autolog.journal.owner import Life, Owner, life
from autolog.journal.progress import Progress
from autolog.journal.reader import Reader
from autolog.records import (
    Decoder,
    Malformed,
    Metrics,
    Params,
    Record,
    RunEnd,
    RunStart,
    Status,
    Tags,
)

_CHUNK = 1 << 20


@dataclass(slots=True)
class Meta:
    """What ``meta.json`` says, checked."""

    target: str
    owner: Owner


def read_meta(folder: Path) -> Meta | None:
    """The description of a journal; None when it is damaged or of a later format."""
    try:
        content = json.loads((folder / layout.META).read_text(encoding="utf-8"))
        if content["format"] != layout.FORMAT:
            return None
        owner = Owner(**content["owner"])
        if not (isinstance(content["target"], str) and isinstance(owner.lock_inode, int)):
            return None
        return Meta(content["target"], owner)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


class Entry(NamedTuple):
    """A record, and the position right behind it."""

    position: int
    record: Record


@dataclass(slots=True)
class _RunState:
    start: RunStart
    newest: int
    ended: bool = False


@dataclass(slots=True)
class Feed:
    """Reads a journal's records in order and keeps its progress."""

    folder: Path
    meta: Meta
    finish: bool = False
    """End the runs of a journal whose owner cannot be told alive from dead."""
    progress: Progress = field(init=False)
    held: set[str] = field(init=False)
    """Keys of the runs that the server refused."""
    _reader: Reader = field(init=False)
    _decoder: Decoder = field(init=False)
    _segment: int = field(init=False, default=-1)
    _runs: dict[int, _RunState] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.progress = progress.load(self.folder)
        self.held = held.keys(self.folder)
        self._reader = Reader(self.folder, self.progress.cursor)
        self._decoder = Decoder()
        for body in self._reader.context():
            self._decode(body)
        self._segment = layout.split(self.progress.cursor)[0]

    def life(self) -> Life:
        """Whether the process that writes this journal is alive."""
        return life(self.folder, self.meta.owner)

    def read(self, owner: Life) -> list[Entry]:
        """The next records, about a megabyte at most; once the owner is dead also the ends of runs
        that it left open."""
        tail, _ = self._reader.control()
        entries = []
        for frame in self._reader.frames(tail, alive=owner is Life.ALIVE, limit=_CHUNK):
            if frame.segment != self._segment:
                self._decoder, self._segment = Decoder(), frame.segment
            record = self._decode(frame.body)
            if record is not None:
                entries.append(Entry(frame.position, record))
        self._note_damage()
        if not entries and (owner is Life.DEAD or (self.finish and owner is Life.UNKNOWN)):
            entries = [Entry(self._reader.position, end) for end in self._orphans()]
        return entries

    @property
    def position(self) -> int:
        """Everything before this has been read."""
        return self._reader.position

    def flush_wanted(self) -> bool:
        """Whether the owner waits for something that is not acknowledged yet."""
        return self._reader.control()[1] > self.progress.cursor

    def commit(self, position: int, *, is_original: bool) -> None:
        """Move the cursor, and let go of the segments behind it."""
        self.progress.cursor = max(self.progress.cursor, position)
        self.store()
        if is_original:
            for number in self._reader.segments():
                if number < layout.split(self.progress.cursor)[0]:
                    (self.folder / layout.segment_name(number)).unlink(missing_ok=True)

    def store(self) -> None:
        """Write the progress."""
        self.progress.store(self.folder)

    def discard_content(self) -> None:
        """Free the disk once everything is acknowledged; the account stays until ``clean``."""
        for number in self._reader.segments():
            (self.folder / layout.segment_name(number)).unlink(missing_ok=True)
        shutil.rmtree(self.folder / layout.FILES, ignore_errors=True)

    def start_of(self, run: int) -> RunStart:
        """The beginning of a run that `read` returned records of."""
        return self._runs[run].start

    def queue_upload(self, run_key: str, file: str, path: str) -> None:
        """Have a spooled file uploaded, once, behind the metrics."""
        upload = [run_key, file, path]
        if upload not in self.progress.uploads:
            self.progress.uploads.append(upload)

    def reject(self, reason: str, values: int) -> None:
        """Count values that the server refused."""
        self.progress.rejected[reason] = self.progress.rejected.get(reason, 0) + values

    def write_dead_letter(self, content: dict[str, object]) -> None:
        """Keep what the server refused, with its words, as a line of JSON."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        fd = os.open(self.folder / layout.REJECTED, flags, 0o600)
        with open(fd, "a", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")

    def sync(self) -> None:
        """Have what is read so far on the disk, not only in the kernel's memory."""
        path = self.folder / layout.segment_name(layout.split(self.position)[0])
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            return
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def spooled(self, file: str) -> Path | None:
        """The path of a spooled file, if it is a regular file inside the journal."""
        base = self.folder / layout.FILES
        path = base / file
        try:
            inside = path.resolve(strict=True).is_relative_to(base.resolve(strict=True))
            status = path.lstat()
        except (OSError, ValueError):
            return None
        return path if inside and stat.S_ISREG(status.st_mode) and status.st_nlink == 1 else None

    # -- one body --------------------------------------------------------------------------------

    def _decode(self, body: bytes) -> Record | None:
        try:
            record = self._decoder.decode(body)
        except Malformed as error:
            self._damaged(str(error))
            return None
        if record is None:
            return None
        if isinstance(record, RunStart):
            known = self._runs.get(record.run)
            if known is not None and known.start == record:
                return None
            self._runs[record.run] = _RunState(record, record.timestamp)
            return record
        state = self._runs.get(record.run)
        if state is None:
            self._damaged(f"{type(record).__name__} of unknown run {record.run}")
            return None
        if isinstance(record, (Metrics, RunEnd)):
            state.newest = max(state.newest, record.timestamp)
        state.ended = state.ended or isinstance(record, RunEnd)
        return record

    def _orphans(self) -> list[RunEnd]:
        marker = self.folder / layout.KILLED_MARKER
        killed = marker.is_file() and marker.stat().st_size > 0
        status = Status.KILLED if killed else Status.FAILED
        ends = []
        for number, state in self._runs.items():
            if state.start.owned and not state.ended and state.start.key not in self.progress.ended:
                state.ended = True
                ends.append(RunEnd(number, status, state.newest))
        return ends

    def _damaged(self, reason: str) -> None:
        self.progress.damage.append(f"segment {self._segment}: {reason}")

    def _note_damage(self) -> None:
        for place in self._reader.damage:
            self.progress.damage.append(
                f"segment {place.segment}, byte {place.offset}: {place.reason}"
            )
        if self._reader.damage:
            self._reader.damage.clear()
            self.store()


Data = Metrics | Params | Tags
