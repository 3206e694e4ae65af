"""`Feed`: one journal as the shipper sees it, from its bytes to its runs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from autolog import held
from autolog.journal import files, layout, progress
from autolog.journal.owner import Life, Owner, life
from autolog.journal.progress import Progress
from autolog.journal.reader import Damage, Frame, Reader
from autolog.records import (
    Decoder,
    Kind,
    Malformed,
    Metrics,
    Params,
    Record,
    RunEnd,
    RunStart,
    Status,
    Tags,
)

_CHUNK = 1 << 14


@dataclass(slots=True)
class Meta:
    """What ``meta.json`` says, checked."""

    target: str
    owner: Owner


def read_meta(folder: Path) -> Meta | None:
    """The description of a journal; None when it is damaged or of a later format.

    None as well for a journal with a folder that leads out of it, made to be written through.
    """
    try:
        content = json.loads(files.read(folder / layout.META))
        if content["format"] != layout.FORMAT or files.holds_linked_folder(folder):
            return None
        owner = Owner(**content["owner"])
        if not (isinstance(content["target"], str) and isinstance(owner.lock_inode, int)):
            return None
        return Meta(content["target"], owner)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def destination(folder: Path, meta: Meta) -> str:
    """Where a journal goes: to its own target, or to the one that ``sync --to`` began to fill."""
    return progress.load(folder).target or meta.target


class Entry(NamedTuple):
    """A record, and the position right behind it."""

    position: int
    record: Record


@dataclass(slots=True)
class _RunState:
    start: RunStart
    newest: int
    ended: bool = False

    def take_note(self, record: Record) -> None:
        if isinstance(record, (Metrics, RunEnd)):
            self.newest = max(self.newest, record.timestamp)
        if isinstance(record, RunEnd):
            self.ended = record.status != Status.RUNNING


@dataclass(slots=True)
class Feed:
    """Reads a journal's records in order and keeps its progress."""

    folder: Path
    meta: Meta
    finish: bool = False
    """Take a journal whose owner cannot be told alive from dead for complete.

    Its runs are ended, and what cannot be read is passed over.
    """
    target: str = ""
    """Where it is sent; its `destination` unless given."""
    is_observer: bool = False
    """Only look: the folder is left as it is."""
    progress: Progress = field(init=False)
    """How far it has come, with what a delivery in the middle of its way has changed."""
    held: set[str] = field(init=False)
    """Keys of the runs that the server refused."""
    _committed: Progress = field(init=False)
    """The same without that: a shipper that is killed then leaves this, and the next one does the
    whole delivery again, which must not count twice."""
    _reader: Reader = field(init=False)
    _decoder: Decoder = field(init=False)
    _segment: int = field(init=False)
    _handed: int = field(init=False)
    """Everything that `read` returned ends here."""
    _runs: dict[int, _RunState] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.progress = progress.load(self.folder)
        self.held = held.keys(self.folder)
        filled = destination(self.folder, self.meta)
        self.target = self.target or filled
        if self.target != filled:
            self._start_over()
        self.progress.target = self.target
        self._committed = deepcopy(self.progress)
        self._reader = Reader(self.folder, self.progress.cursor)
        self._decoder = Decoder()
        self._segment = layout.split(self.progress.cursor)[0]
        self._handed = self.progress.cursor
        for frame in self._reader.context():
            self._decode(frame)

    def life(self) -> Life:
        """Whether the process that writes this journal is alive."""
        return life(self.folder, self.meta.owner)

    def read(self, owner: Life) -> list[Entry]:
        """The next records, about 16 KB at most.

        Once the owner is dead also the ends of runs that it left open.
        """
        is_over = owner is Life.DEAD or (self.finish and owner is Life.UNKNOWN)
        is_complete = is_over or (self.is_held and owner is Life.UNKNOWN)
        entries: list[Entry] = []
        before = -1
        while not entries and before != self._reader.position:
            before = self._reader.position
            entries = self._next(Life.DEAD if is_complete else owner)
        self._note_damage(owner)
        if not entries and is_over:
            entries = [Entry(self._reader.position, end) for end in self._orphans()]
        if entries:
            self._handed = entries[-1].position
        elif self._handed <= self.progress.cursor < self._reader.position:
            # What holds no record, names or damage, waits for nobody's answer.
            self.commit(self._reader.position)
        return entries

    def _next(self, owner: Life) -> list[Entry]:
        """The records of the next frames; none may be found in frames that only declare names."""
        entries = []
        for frame in self._reader.frames(owner, _CHUNK):
            record = self._decode(frame)
            if record is not None:
                entries.append(Entry(frame.position, record))
        return entries

    @property
    def position(self) -> int:
        """Everything before this has been read."""
        return self._reader.position

    @property
    def tail(self) -> int:
        """The position up to which the owner has published records; 0 if that is unreadable."""
        return self._reader.control().tail or 0

    @property
    def gap(self) -> str:
        """Where an incomplete copy cannot be read yet; empty where all of it was."""
        return "" if self._reader.gap is None else str(self._reader.gap)

    @property
    def is_held(self) -> bool:
        """Whether this is a run that the server refused, set aside from its journal."""
        return self.folder.parent.name == layout.HELD

    def flush_wanted(self) -> bool:
        """Whether the owner waits for something that is not acknowledged yet."""
        return self._reader.control().flush > self.progress.cursor

    def commit(self, position: int) -> None:
        """Move the cursor, and let go of the segments behind it; a copy keeps its own."""
        self.progress.cursor = max(self.progress.cursor, position)
        self._committed = deepcopy(self.progress)
        self.store()
        if self.life() is not Life.UNKNOWN:
            segment, _ = layout.split(self.progress.cursor)
            if self._let_go(before=segment):
                self.store()  # in case the disk was full before

    def store(self) -> None:
        """Write the progress, if there is room: without it, the same is only sent again one day."""
        with contextlib.suppress(OSError):
            if not self.is_observer:
                self._committed.store(self.folder)

    def know_run(self, run_key: str, run_id: str) -> None:
        """Take note of a run's id, for whoever asks at once."""
        for state in (self.progress, self._committed):
            state.run_ids[run_key] = run_id
        self.store()

    def settle_upload(self, upload: list[str], refusal: str, *, is_params_file: bool) -> None:
        """See `Progress.settle_upload`."""
        for state in (self.progress, self._committed):
            state.settle_upload(upload, refusal, is_params_file=is_params_file)
        self.store()

    def _let_go(self, before: int) -> bool:
        """Remove segments; False when there were none."""
        if self.is_observer:
            return False
        numbers = [number for number in self._reader.segments() if number < before]
        for number in numbers:
            with contextlib.suppress(OSError):
                (self.folder / layout.segment_name(number)).unlink()
        return bool(numbers)

    def discard_content(self) -> None:
        """Free the disk once everything is acknowledged; the account stays until ``clean``."""
        self._let_go(before=layout.SEALED)
        shutil.rmtree(self.folder / layout.FILES, ignore_errors=True)

    def start_of(self, run: int) -> RunStart:
        """The beginning of a run that `read` returned records of."""
        return self._runs[run].start

    def queue_upload(self, run_key: str, file: str, path: str, kind: str = Kind.FILE) -> None:
        """Have a spooled file uploaded, behind the metrics."""
        upload = [run_key, file, path, kind]
        # The first may be on its way already, with what the file held before.
        if upload not in self.progress.uploads[1:]:
            self.progress.uploads.append(upload)

    def hold(self, run_key: str, reason: str, values: int) -> None:
        """Count values of a run that is set aside."""
        self.held.add(run_key)
        reason = self.progress.reject(reason, values)
        counts = self.progress.held.setdefault(run_key, {})
        counts[reason] = counts.get(reason, 0) + values

    def write_dead_letter(self, content: dict[str, object]) -> None:
        """Keep what the server refused, with its words, as a line of JSON."""
        with contextlib.suppress(OSError):
            files.append(self.folder / layout.REJECTED, f"{json.dumps(content)}\n".encode())

    def sync(self) -> None:
        """Have what is read so far on the disk, not only in the kernel's memory."""
        path = self.folder / layout.segment_name(layout.split(self.position)[0])
        with contextlib.suppress(OSError), files.opened(path) as fd:
            os.fsync(fd)

    def spooled(self, file: str) -> Path | None:
        """The path of a spooled file, if it is a regular file inside the journal."""
        path = self.folder / layout.FILES / file
        base = self.folder.resolve() / layout.FILES
        try:
            inside = path.resolve(strict=True).is_relative_to(base)
            status = path.lstat()
        except (OSError, ValueError):
            return None
        return path if inside and stat.S_ISREG(status.st_mode) and status.st_nlink == 1 else None

    def size(self, file: str) -> int:
        """Bytes of a spooled file; 0 where there is none."""
        path = self.spooled(file)
        try:
            return 0 if path is None else path.stat().st_size
        except OSError:
            return 0

    # -- one body --------------------------------------------------------------------------------

    def _decode(self, frame: Frame) -> Record | None:
        segment, _ = layout.split(frame.position)
        if segment != self._segment:
            self._decoder, self._segment = Decoder(), segment
        try:
            record = self._decoder.decode(frame.body)
        except Malformed as error:
            self._damaged(frame, str(error))
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
            self._damaged(frame, f"{type(record).__name__} of unknown run {record.run}")
            return None
        state.take_note(record)
        return record

    def _orphans(self) -> list[RunEnd]:
        status = Status.KILLED if self._is_marked else Status.FAILED
        ends = []
        for number, state in self._runs.items():
            if state.start.owned and not state.ended and state.start.key not in self.progress.ended:
                state.ended = True
                ends.append(RunEnd(number, status, state.newest))
        return ends

    @property
    def _is_marked(self) -> bool:
        """Whether SIGTERM has ended the owner: the mark has room, of zeros, before it is left."""
        try:
            return files.read(self.folder / layout.KILLED_MARKER, 1) not in (b"", b"\0")
        except OSError:
            return False

    def _start_over(self) -> None:
        """Another target has nothing yet of what this journal still holds."""
        first = min(Reader(self.folder).segments(), default=0)
        self.progress = Progress(layout.position(first, 0), uploads=self.progress.uploads)
        self.held = set()

    def _damaged(self, frame: Frame, reason: str) -> None:
        start = frame.position - len(frame.body) - layout.HEADER.size
        self._reader.damage.append(Damage(start, reason))

    def _note_damage(self, owner: Life) -> None:
        found = [str(place) for place in self._reader.damage]
        self._reader.damage.clear()
        if owner is not Life.ALIVE and self._reader.control().is_damaged:
            found.append(f"{layout.CONTROL}: unreadable")
        noted = [self._committed.note_damage(line) for line in found]
        self.progress.damage = list(self._committed.damage)
        if any(noted):
            self.store()


Data = Metrics | Params | Tags
