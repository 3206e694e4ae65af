"""`Journal`: what a process appends to, without an I/O call on the way."""

from __future__ import annotations

import itertools
import json
import mmap
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from autolog.journal import layout
from autolog.journal.owner import Lock, this_process

_SMALLEST_SEGMENT = 1 << 16
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, Linux 5.14; not yet a name in the mmap module
_POPULATE_STEP = 1 << 18
_TIGHT_SHARE = 0.8
_OVERHEAD = layout.START + layout.HEADER.size


class _Segment(NamedTuple):
    number: int
    size: int
    memory: mmap.mmap


class Journal:
    """An append-only log of frames that survives the death of its process.

    `append` copies a frame into a memory-mapped, fully allocated file and publishes it by storing
    the tail: no system call, so SIGKILL loses nothing that `append` returned from.
    Safe from any thread, finalizer or signal handler.
    When space runs out frames are dropped and counted, frames that are not essential first.
    """

    def __init__(
        self,
        folder: Path,
        description: dict[str, Any],
        *,
        segment_size: int,
        limit: int,
        wake: Callable[[], None],
    ) -> None:
        """Make the folder with its first segment.

        `wake` is called when the keeper should `prepare` the next segment; it must not block.
        `description` goes into ``meta.json`` beside format, owner and time.
        Raises `OSError` when not even the smallest segment can be allocated.
        """
        self.folder, self.description = folder, description
        self.ids = itertools.count(1)
        """Numbers unique in this journal: of runs, of tuples of names, of spooled files."""
        self.dropped: Counter[str] = Counter()
        """Values not stored, by reason."""
        self.logged = 0
        """Values handed to `append`."""
        self._segment_size = segment_size
        self._limit = limit
        self._wake = wake
        self._lock = threading.RLock()
        self._busy = False
        self._deferred: deque[tuple[bytes, int]] = deque()
        self._sticky: dict[object, bytes] = {}
        self._shortage: str | None = None
        self._exhausted = False
        self._numbers = itertools.count()
        self._number = -1
        self._offset = self._end = self._base = 0
        self._spare: _Segment | None = None
        self._fresh: deque[_Segment] = deque()
        folder.mkdir(mode=0o700, parents=True)
        (folder / layout.FILES).mkdir(mode=0o700)
        self._owner_lock = Lock(folder / layout.OWNER_LOCK)
        self._owner_lock.acquire()
        self._control = self._map(folder / layout.CONTROL, layout.CONTROL_SIZE)
        self._words = memoryview(self._control).cast("Q")
        self._control[: len(layout.MAGIC)] = layout.MAGIC
        self._use(self._allocate(0))
        meta = {
            "format": layout.FORMAT,
            "created": time.time_ns() // 1_000_000,
            "owner": this_process(self._owner_lock.path).as_json(),
            **description,
        }
        _write_private(folder / layout.META, json.dumps(meta).encode())

    # -- the hot path --------------------------------------------------------------------------

    def append(self, frame: bytes, values: int = 1, essential: bool = True) -> bool:
        """Store a frame that holds so many values; False when it was dropped and counted.

        A call from inside another one on the same thread (a finalizer, a signal handler) leaves
        its frame to that one.
        """
        with self._lock:
            self.logged += values
            if self._busy:
                self._deferred.append((frame, values))
                return True
            self._busy = True
            try:
                if self._shortage and not essential:
                    self.dropped[self._shortage] += values
                    return False
                return self._store(frame, values)
            finally:
                self._busy = False
                if self._deferred:
                    self._store_deferred()

    def _store(self, frame: bytes, values: int) -> bool:
        end = self._offset + len(frame)
        if end > self._end:
            if not self._roll(len(frame)):
                self.dropped[self._shortage or "journal full"] += values
                return False
            end = self._offset + len(frame)
        self._memory[self._offset : end] = frame
        self._offset = end
        self._words[layout.TAIL] = self._base | end
        return True

    def _store_deferred(self) -> None:
        while self._deferred:
            frame, values = self._deferred.popleft()
            self._busy = True
            try:
                self._store(frame, values)
            finally:
                self._busy = False

    def declare(self, name: object, frame: bytes) -> bool:
        """Append a frame that every later segment must repeat at its start, until `forget`."""
        with self._lock:
            self._sticky[name] = frame
            return self.append(frame, 0)

    def forget(self, name: object) -> None:
        """Stop repeating a declared frame."""
        with self._lock:
            self._sticky.pop(name, None)

    # -- segments ------------------------------------------------------------------------------

    def _roll(self, need: int) -> bool:
        preamble = b"".join(self._sticky.values())
        need += len(preamble)
        if self._spare is None or self._spare.size < need + _OVERHEAD:
            if self._exhausted:
                return False
            try:
                self._offer(self._allocate(need))
            except OSError:
                return False
        segment, self._spare = self._spare, None
        assert segment is not None
        seal = layout.HEADER.pack(layout.SEALED, segment.number)
        self._memory[self._offset : self._offset + len(seal)] = seal
        self._use(segment, preamble)
        self._wake()
        return True

    def _use(self, segment: _Segment, preamble: bytes = b"") -> None:
        end = layout.START + len(preamble)
        segment.memory[:end] = layout.MAGIC + preamble
        self._number, self._memory = segment.number, segment.memory
        self._base = layout.position(segment.number, 0)
        self._offset, self._end = end, segment.size - layout.HEADER.size
        self._words[layout.TAIL] = self._base | end

    def _allocate(self, need: int) -> _Segment:
        """A new segment, smaller than usual where the disk has no room for a whole one."""
        need = max(need + _OVERHEAD, _SMALLEST_SEGMENT)
        if self._used() + need > self._limit:
            self._shortage, self._exhausted = "journal limit", True
            raise OSError(f"{self.folder} holds {self._limit} unsent bytes")
        number = next(self._numbers)
        path = self.folder / layout.segment_name(number)
        size = max(self._segment_size, need)
        while True:
            try:
                segment = _Segment(number, size, self._map(path, size))
            except OSError:
                path.unlink(missing_ok=True)
                self._shortage = "disk full"
                size //= 2
                if size < need:
                    self._exhausted = True
                    raise
            else:
                _populate(segment, _POPULATE_STEP)
                self._fresh.append(segment)
                return segment

    def _offer(self, segment: _Segment) -> None:
        """Keep a segment for the next roll, unless one that came later is in use already."""
        with self._lock:
            former = self._spare
            self._spare = segment if segment.number > self._number else former
        if former is not None and former is not self._spare:
            self._discard(former)
        if segment is not self._spare:
            self._discard(segment)

    def _discard(self, segment: _Segment) -> None:
        (self.folder / layout.segment_name(segment.number)).unlink(missing_ok=True)

    @staticmethod
    def _map(path: Path, size: int) -> mmap.mmap:
        """Map a new file whose blocks are all there: a store into a hole on a full disk is SIGBUS."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, size)
            else:
                os.write(fd, bytes(size))
            return mmap.mmap(fd, size)
        finally:
            os.close(fd)

    def _used(self) -> int:
        with os.scandir(self.folder) as entries:
            return sum(e.stat().st_size for e in entries if e.name.endswith(".seg"))

    # -- the keeper's side -----------------------------------------------------------------------

    def prepare(self) -> None:
        """Have the next segment ready, and notice when space is short or back."""
        try:
            if self._spare is None:
                self._offer(self._allocate(0))
            while self._fresh:
                _populate(self._fresh.popleft())
            if self._spare is not None and self._spare.size >= self._segment_size:
                nearly = self._used() > _TIGHT_SHARE * self._limit
                self._shortage, self._exhausted = "journal limit" if nearly else None, False
        except OSError:
            return

    def sync(self) -> None:
        """Write the newest segment to the disk, and move its time so that rsync sees the change."""
        with self._lock:
            memory, name = self._memory, layout.segment_name(self._number)
        memory.flush()
        os.utime(self.folder / name)
        os.utime(self.folder / layout.CONTROL)

    @property
    def tail(self) -> int:
        """The position up to which frames are published."""
        return int(self._words[layout.TAIL])

    def request_flush(self) -> int:
        """Ask the shipper to send at once all that is published; returns that position."""
        tail = self.tail
        self._words[layout.FLUSH] = tail
        return tail

    def close(self) -> None:
        """Say that nothing more is expected; a later `append` still works."""
        with self._lock:
            spare, self._spare = self._spare, None
            if spare is not None:
                self._discard(spare)
            self._words[layout.CLOSED] = 1

    def abandon(self) -> None:
        """In a forked child: let go of the parent's journal without a trace."""
        self._owner_lock.release()


def _populate(segment: _Segment, size: int | None = None) -> None:
    """Fault pages in now, in steps, since madvise holds the interpreter's lock: 0.7 ms a MB here,
    against 3 to 5 us at every 37th step later."""
    end = min(size or segment.size, segment.size)
    try:
        for start in range(0, end, _POPULATE_STEP):
            segment.memory.madvise(_POPULATE_WRITE, start, min(_POPULATE_STEP, end - start))
            time.sleep(0)
    except (AttributeError, OSError, ValueError):
        return


def _write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    os.replace(partial, path)
