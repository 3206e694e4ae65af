"""`Journal`: what a process appends to, without an I/O call on the way."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autolog import guard
from autolog.journal import files, layout, segments
from autolog.journal.owner import Lock, this_process
from autolog.journal.segments import Segment

_SMALLEST_SEGMENT = 1 << 16
_TIGHT_SHARE = 0.8
_SEGMENTS_A_JOURNAL = 8
"""At least so many segments fit a journal's limit, else one could not give way to the next."""
_RESERVE_SHARE, _LARGEST_RESERVE = 16, 1 << 16
"""One part in so many of a segment, and at most so many bytes, are left for starts and ends of runs
once space is short: no value takes them."""
_OVERHEAD = layout.START + layout.SEAL_SIZE
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Journal:
    """An append-only log of frames that survives the death of its process.

    `append` copies a frame into a memory-mapped, fully allocated file and publishes it by storing
    the tail: no system call, so SIGKILL loses nothing that `append` returned from.
    Safe from any thread, finalizer or signal handler, also from one that raises in the middle.
    When space runs out frames are dropped and counted, frames that are not essential first.
    """

    # An exception of a signal handler comes up where a call returns or a loop turns (CPython from
    # 3.10 on). So whatever must happen whole stands here as plain assignments, without a call.

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
        self.limit = limit
        """Bytes that its segments may take, and so many the files that wait beside them."""
        self.ids = itertools.count(1)
        """Numbers unique in this journal: of runs, of tuples of names, of spooled files."""
        self.dropped: Counter[str] = Counter()
        """Values not stored, by reason."""
        self.logged = 0
        """Values stored or dropped."""
        self.lock = threading.RLock()
        """Held while a frame is stored. Who calls `append` under a lock of his own takes this one:
        a finalizer that logs would close the circle of two."""
        largest = min(layout.LARGEST_SEGMENT, limit // _SEGMENTS_A_JOURNAL)
        self._segment_size = max(min(segment_size, largest), _SMALLEST_SEGMENT)
        self._wake = wake
        self._busy = False
        self._deferred: deque[tuple[bytes, int, bool]] = deque()
        self._sticky: dict[object, bytes] = {}
        self._shortage: str | None = None
        self._exhausted = False
        self._numbers = itertools.count()
        self._number = -1
        self._offset = self._end = self._last = self._base = 0
        self._touched = 0
        """The newest time that a file of this journal was given, in seconds since the epoch."""
        self._spare: Segment | None = None
        self._fresh: deque[Segment] = deque()
        folder.mkdir(mode=0o700, parents=True)
        self._owner_lock = Lock(folder / layout.OWNER_LOCK)
        try:
            self._fill()
        except OSError:
            self._owner_lock.release()
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _fill(self) -> None:
        """Make what the folder holds; the lock first, lest a shipper takes its owner for dead."""
        self._owner_lock.acquire()
        (self.folder / layout.FILES).mkdir(mode=0o700)
        meta = {
            "format": layout.FORMAT,
            "created": time.time_ns() // 1_000_000,
            "owner": this_process(self._owner_lock.path).as_json(),
            **self.description,
        }
        files.replace(self.folder / layout.META, json.dumps(meta).encode())
        self._control = segments.map_file(self.folder / layout.CONTROL, layout.CONTROL_SIZE)
        self._words = memoryview(self._control).cast("Q")
        self._control[: len(layout.MAGIC)] = layout.MAGIC
        self._use(self._allocate(0))

    # -- the hot path --------------------------------------------------------------------------

    def append(self, frame: bytes, values: int = 1, essential: bool = True) -> None:
        """Store a frame that holds so many values, or drop and count it where space is short.

        A call from inside another one on the same thread (a finalizer, a signal handler) leaves
        its frame to that one.
        """
        with self.lock:
            if self._busy:
                self._deferred.append((frame, values, essential))
                return
            self._busy = True
            try:
                if self._deferred:
                    self._store_deferred()
                self._store(frame, values, essential)
                if self._deferred:
                    self._store_deferred()
            finally:
                self._busy = False

    def _store(self, frame: bytes, values: int, essential: bool) -> None:
        end = self._offset + len(frame)
        if end > self._end or self._shortage:
            reason = self._make_room(len(frame), values, essential)
            if reason:
                self._lose(reason, values, essential)
                return
            end = self._offset + len(frame)
        self._memory[self._offset : end] = frame
        self._offset = end
        self._words[layout.TAIL] = self._base | end
        self.logged += values

    def _lose(self, reason: str, values: int, essential: bool) -> None:
        """Count a frame that cannot be stored; the start or end of a run counts as one value."""
        self.drop(reason, values or int(essential))
        if not values and essential:  # behind the lost start of a run nothing of it may stand here
            self._end = self._last = 0

    def _store_deferred(self) -> None:
        """Store what came in the middle of a call, in its order; only then is it let go."""
        while self._deferred:
            self._store(*self._deferred[0])
            self._deferred.popleft()

    def drop(self, reason: str, values: int) -> None:
        """Count values that are not stored."""
        with self.lock:
            self.dropped[reason] += values
            self.logged += values

    def declare(self, name: object, frame: bytes) -> None:
        """Append a frame that every later segment must repeat at its start, until `forget`."""
        with self.lock:
            self._sticky[name] = frame
            self.append(frame, 0)

    def forget(self, name: object) -> None:
        """Stop repeating a declared frame."""
        with self.lock:
            self._sticky.pop(name, None)

    # -- segments ------------------------------------------------------------------------------

    def _make_room(self, need: int, values: int, essential: bool) -> str | None:
        """Have room for so many bytes; else the reason why the frame must be dropped.

        One without values, as the start or the end of a run, may take the reserve.
        """
        if self._shortage and not essential:
            return self._shortage
        if self._offset + need <= self._end:
            return None
        if need > layout.LARGEST_BODY:
            return "too large"
        if self._roll(need) or (not values and self._offset + need <= self._last):
            return None
        return self._shortage or "no room in the journal"

    def _roll(self, need: int) -> bool:
        preamble = b"".join(self._sticky.values())
        need += len(preamble) + _OVERHEAD
        need += min(need // (_RESERVE_SHARE - 1) + 1, _LARGEST_RESERVE)
        if self._spare is None or self._spare.size < need:
            if self._exhausted:
                return False
            try:
                self._offer(self._allocate(need))
            except OSError:
                return False
        assert self._spare is not None
        seal = layout.seal(self._spare.number)
        self._memory[self._offset : self._offset + len(seal)] = seal
        self._touch(layout.segment_name(self._number))
        self._use(self._spare, preamble)
        self._wake()
        return True

    def _use(self, segment: Segment, preamble: bytes = b"") -> None:
        """Go on in a segment, which is the spare one no longer."""
        start = layout.MAGIC + preamble
        offset, last = len(start), segment.size - layout.SEAL_SIZE
        base = layout.position(segment.number, 0)
        segment.memory[:offset] = start
        self._number = segment.number
        self._memory = segment.memory
        self._base = base
        self._offset = offset
        self._end, self._last = last - min(segment.size // _RESERVE_SHARE, _LARGEST_RESERVE), last
        self._words[layout.TAIL] = base | offset
        self._spare = None

    def _allocate(self, need: int) -> Segment:
        """A new segment, smaller than usual where the disk has no room for a whole one."""
        for size in self._sizes(max(need, _SMALLEST_SEGMENT)):
            try:
                segment = segments.create(self.folder, next(self._numbers), size)
            except OSError as error:
                self._shortage = "disk full" if error.errno in _FULL else str(error.strerror)
                if error.errno not in _FULL:
                    break
            else:
                self._fresh.append(segment)
                return segment
        self._exhausted = True
        raise OSError(f"{self.folder}: {self._shortage}")

    def _sizes(self, need: int) -> list[int]:
        """Sizes to try for a segment, the largest first; none that the limit forbids."""
        room = self.limit - segments.used(self.folder)
        if room < need:
            self._shortage = "journal limit"
            return []
        sizes = [min(max(self._segment_size, need), room)]
        while sizes[-1] // 2 >= need:
            sizes.append(sizes[-1] // 2)
        return sizes

    def _offer(self, segment: Segment) -> None:
        """Keep a segment for the next roll, unless one that came later is in use already."""
        with self.lock:
            former = self._spare
            self._spare = segment if segment.number > self._number else former
        if former is not None and former is not self._spare:
            segments.remove(self.folder, former)
        if segment is not self._spare:
            segments.remove(self.folder, segment)

    # -- the keeper's side -----------------------------------------------------------------------

    def prepare(self) -> None:
        """Have the next segment ready, of full size once there is space; say when there is not."""
        spare = self._spare
        with contextlib.suppress(OSError):
            if spare is None or spare.size < self._segment_size:
                self._offer(self._allocate(self._segment_size if spare else 0))
            while self._fresh:
                self._fresh.popleft().populate()
            if self._spare is None or self._spare.size >= self._segment_size:
                nearly = segments.used(self.folder) > _TIGHT_SHARE * self.limit
                self._shortage, self._exhausted = "journal limit" if nearly else None, False
        if self._shortage:
            guard.say_once(
                f"shortage:{self.folder}",
                f"{self._shortage}: batch values, then all others, are dropped and counted until "
                f"there is room again in {self.folder}. Training goes on",
            )

    def sync(self) -> None:
        """Write the newest segment to the disk."""
        with self.lock:
            memory = self._memory
        memory.flush()
        self._touch_newest()

    def _touch_newest(self) -> None:
        self._touched = self._touch(layout.segment_name(self._number), layout.CONTROL)

    def _touch(self, *names: str) -> int:
        """Move the time of files, which a store into a mapping does not, to one they never had.

        rsync goes by the time, and by its whole seconds, so a second touch within one is no change.
        """
        when = max(self._touched, int(time.time())) + 1
        with contextlib.suppress(OSError):
            for name in names:
                os.utime(self.folder / name, (when, when))
        return when

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
        """Give back the space of the spare segment; a later `append` still works."""
        with self.lock:
            spare, self._spare = self._spare, None
            if spare is not None:
                segments.remove(self.folder, spare)
            self._touch_newest()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's journal without a trace.

        What a copy of the parent's objects appends here later is dropped.
        """
        self._owner_lock.release()
        self.lock = threading.RLock()
        self._words = memoryview(bytearray(layout.CONTROL_SIZE)).cast("Q")
        self._busy, self._spare = False, None
        self._end = self._last = 0
        self._exhausted, self._shortage = True, "journal of the parent process"
