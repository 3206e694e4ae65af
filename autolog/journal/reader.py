"""`Reader`: the frames of a journal folder, in order, whatever state its files are in."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from autolog.journal import layout

_WINDOW = 1 << 18
_LARGEST_FRAME = 1 << 28


class Frame(NamedTuple):
    """One frame's body, its segment, and the position right behind it."""

    segment: int
    position: int
    body: bytes


class Damage(NamedTuple):
    """A place in a journal that cannot be read, and why."""

    segment: int
    offset: int
    reason: str


class _Unreadable(Exception):
    """No frame at this place; `resume` is where the next one would stand, if that is known."""

    def __init__(self, reason: str, resume: int | None = None, *, untouched: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.resume, self.untouched = reason, resume, untouched


class _Sealed(Exception):  # noqa: N818 - control flow, not an error
    def __init__(self, following: int) -> None:
        super().__init__(following)
        self.following = following


class Reader:
    """Reads a journal from a position on.

    Nothing in the folder is trusted: links are not followed, lengths are checked, damage is
    reported once in `damage` and reading goes on behind it, or in the next segment.
    """

    def __init__(self, folder: Path, position: int = 0) -> None:
        self.folder = folder
        self.damage: list[Damage] = []
        self._segment, self._offset = layout.split(position)
        self._suspect = -1

    @property
    def position(self) -> int:
        """Everything before this has been read."""
        return layout.position(self._segment, self._offset)

    def control(self) -> tuple[int | None, int]:
        """The published tail, and the position up to which the owner wants to be flushed.

        The tail is None when the control page cannot be read.
        """
        page = _read(self.folder / layout.CONTROL, 0, layout.CONTROL_SIZE)
        if len(page) < layout.CONTROL_SIZE or not page.startswith(layout.MAGIC):
            return None, 0
        return _word(page, layout.TAIL), _word(page, layout.FLUSH)

    def context(self) -> Iterator[bytes]:
        """The bodies of this segment before the position: what a decoder must know to go on."""
        earlier = Reader(self.folder, layout.position(self._segment, 0))
        for frame in earlier.frames(self.position, alive=True):
            yield frame.body

    def frames(self, tail: int | None, *, alive: bool, limit: int = 1 << 62) -> Iterator[Frame]:
        """The next frames, up to `limit` bytes of bodies.

        While the owner lives no frame behind the tail is read.
        Once it is dead every whole frame counts, also one whose publication the death forestalled.
        """
        window = _Window(self.folder)
        while limit > 0 and not (alive and tail is not None and self.position >= tail):
            try:
                body = self._next(window)
            except _Sealed as seal:
                self._enter(seal.following)
                continue
            except _Unreadable as problem:
                if not self._pass_over(problem, window, tail, alive):
                    return
                continue
            limit -= len(body)
            yield Frame(self._segment, self.position, body)

    def segments(self) -> list[int]:
        """The numbers of the segment files that exist, in order."""
        try:
            names = os.listdir(self.folder)
        except OSError:
            return []
        return sorted(n for n in map(layout.segment_number, names) if n is not None)

    # -- one step ------------------------------------------------------------------------------

    def _next(self, window: _Window) -> bytes:
        if self._offset < layout.START:
            magic = window.read(self._segment, 0, layout.START)
            if magic != layout.MAGIC:
                raise _Unreadable("no segment header", untouched=not any(magic))
            self._offset = layout.START
        body, self._offset = _frame_at(window, self._segment, self._offset)
        return body

    def _pass_over(
        self, problem: _Unreadable, window: _Window, tail: int | None, alive: bool
    ) -> bool:
        """Go on behind an unreadable place; False when there is nothing more to read for now."""
        following = self._following_written(window)
        if tail is not None:
            expects_more = self.position < tail
        else:
            expects_more = not problem.untouched
        if not expects_more and following is None and problem.untouched:
            return False
        if alive and self._suspect != self.position:
            # Stores of another core may become visible out of order: look again before judging.
            self._suspect = self.position
            return False
        self.damage.append(Damage(self._segment, self._offset, problem.reason))
        if problem.resume is not None and _stands_at(window, self._segment, problem.resume):
            self._offset = problem.resume
        elif following is not None:
            self._enter(following)
        else:
            self._give_up(tail)
            return False
        return True

    def _give_up(self, tail: int | None) -> None:
        """Stand where the damage is not met again: at the tail, else behind the last segment."""
        beyond = layout.position((self.segments() or [self._segment])[-1] + 1, 0)
        self._segment, self._offset = layout.split(max(tail or beyond, self.position + 1))

    def _enter(self, segment: int) -> None:
        self._segment, self._offset = segment, 0

    def _following_written(self, window: _Window) -> int | None:
        for number in self.segments():
            if number > self._segment and window.read(number, 0, layout.START) == layout.MAGIC:
                return number
        return None


class _Window:
    """A stretch of a segment file in memory, moved as reading goes on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segment, self._start, self._content = -1, 0, b""

    def read(self, segment: int, offset: int, size: int) -> bytes:
        """Bytes of a segment; fewer at the end of the file, none of a missing file."""
        start = offset - self._start
        if segment != self._segment or start < 0 or start + size > len(self._content):
            path = self._folder / layout.segment_name(segment)
            self._segment, self._start = segment, offset
            self._content = _read(path, offset, max(size, _WINDOW))
            start = 0
        return self._content[start : start + size]


def _frame_at(window: _Window, segment: int, offset: int) -> tuple[bytes, int]:
    header = window.read(segment, offset, layout.HEADER.size)
    if len(header) < layout.HEADER.size:
        raise _Unreadable("file cut off", untouched=not header)
    length, check = layout.HEADER.unpack(header)
    if length == layout.SEALED:
        if check <= segment:
            raise _Unreadable("seal names an earlier segment")
        raise _Sealed(check)
    if length == 0:
        raise _Unreadable("no frame", untouched=check == 0)
    start = offset + layout.HEADER.size
    body = window.read(segment, start, length) if length <= _LARGEST_FRAME else b""
    if len(body) < length:
        raise _Unreadable("frame cut off")
    if zlib.crc32(body) != check:
        raise _Unreadable("wrong checksum", resume=start + length)
    return body, start + length


def _stands_at(window: _Window, segment: int, offset: int) -> bool:
    """Whether a frame, a seal or untouched space stands at an offset."""
    try:
        _frame_at(window, segment, offset)
    except _Sealed:
        return True
    except _Unreadable as problem:
        return problem.untouched
    return True


def _word(page: bytes, index: int) -> int:
    return int.from_bytes(page[8 * index : 8 * index + 8], "little")


def _read(path: Path, start: int, size: int) -> bytes:
    """Bytes of a regular file; nothing for a link, a device or a missing file."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        fd = os.open(path, flags)
    except OSError:
        return b""
    try:
        return os.pread(fd, size, start)
    except OSError:
        return b""
    finally:
        os.close(fd)
