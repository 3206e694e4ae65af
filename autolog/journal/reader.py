"""`Reader`: the frames of a journal folder, in order, whatever state its files are in."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from autolog.journal import files, layout
from autolog.journal.owner import Life

_WINDOW = 1 << 18
_NOWHERE = 1 << 64


class Frame(NamedTuple):
    """One frame's body, and the position right behind it."""

    position: int
    body: bytes


class Damage(NamedTuple):
    """A position of a journal that cannot be read, and why."""

    position: int
    reason: str

    def __str__(self) -> str:
        segment, offset = layout.split(self.position)
        return f"segment {segment}, byte {offset}: {self.reason}"


class Control(NamedTuple):
    """What the owner says in the control page."""

    tail: int | None = None
    """The position up to which frames are published; None when the page cannot be read."""
    flush: int = 0
    """The position up to which the owner wants to be flushed."""
    is_damaged: bool = False


class Reader:
    """Reads a journal from a position on.

    Nothing in the folder is trusted: links are not followed, lengths are checked.
    Damage is reported once in `damage`; reading goes on behind it: behind a frame with the wrong
    checksum where its length says, else at the next place where a frame is known to start.
    """

    def __init__(self, folder: Path, position: int = 0) -> None:
        self.folder = folder
        self.position = position
        """Everything before this has been read."""
        self.damage: list[Damage] = []
        self.gap: Damage | None = None
        """Where reading stopped in a copy that is not complete."""
        self._suspect = _NOWHERE

    def control(self) -> Control:
        """What the owner says in the control page."""
        try:
            page = files.read(self.folder / layout.CONTROL, layout.CONTROL_SIZE)
        except FileNotFoundError:
            return Control()
        except OSError:
            page = b""
        if len(page) < layout.CONTROL_SIZE or not page.startswith(layout.MAGIC):
            return Control(is_damaged=True)
        return Control(_word(page, layout.TAIL), _word(page, layout.FLUSH))

    def context(self) -> Iterator[Frame]:
        """The frames of this segment before the position: what a decoder must know to go on."""
        segment, _ = layout.split(self.position)
        for frame in Reader(self.folder, layout.position(segment, 0)).frames(Life.DEAD):
            if frame.position > self.position:
                return
            yield frame

    def frames(self, owner: Life, limit: int = 1 << 62) -> Iterator[Frame]:
        """The next frames, up to about `limit` bytes of bodies.

        While the owner lives no frame behind the tail is read.
        Once it is dead every whole frame counts, also one whose publication the death forestalled.
        Where that is unknown the files may be a copy that another one completes: nothing is
        passed over then, see `gap`.
        """
        self.gap = None
        tail, window = self.control().tail, _Window(self.folder)
        end = tail if tail is not None and owner is Life.ALIVE else _NOWHERE
        while limit > 0 and self.position < end:
            place = window.look(self.position)
            if place.problem:
                if not self._pass_over(place, tail, owner):
                    return
                continue
            self.position = place.onward
            if place.body:
                limit -= len(place.body)
                yield Frame(self.position, place.body)

    def segments(self) -> list[int]:
        """The numbers of the segment files that exist, in order."""
        try:
            names = [path.name for path in self.folder.iterdir()]
        except OSError:
            return []
        return sorted(n for n in map(layout.segment_number, names) if n is not None)

    def _pass_over(self, place: _Place, tail: int | None, owner: Life) -> bool:
        """Go on behind an unreadable place; False when there is nothing more to read for now."""
        later = self._later_segment()
        is_blank_end = place.is_blank and later == _NOWHERE
        if is_blank_end if tail is None else self.position >= tail:
            return False
        damage = Damage(self.position, place.problem)
        if owner is Life.UNKNOWN:
            self.gap = damage
            return False
        if owner is Life.ALIVE and self._suspect != self.position:
            # Stores of another core may become visible out of order: look again before judging.
            self._suspect = self.position
            return False
        self.damage.append(damage)
        segment, _ = layout.split(self.position)
        starts = (place.onward, later, tail or 0)
        self.position = min(
            (start for start in starts if self.position < start < _NOWHERE),
            default=layout.position(segment + 1, 0),
        )
        return True

    def _later_segment(self) -> int:
        """The start of the next segment that has been written to."""
        for number in self.segments():
            start = layout.position(number, 0)
            if start > self.position:
                path = self.folder / layout.segment_name(number)
                if _read(path, layout.START) == layout.MAGIC:
                    return start
        return _NOWHERE


class _Place(NamedTuple):
    """What stands at a position: a frame, something that only leads on, or a problem."""

    onward: int = 0
    """Where to go on; 0 when a problem leaves that unknown."""
    body: bytes = b""
    problem: str = ""
    is_blank: bool = False
    """Nothing was ever written here, as far as one can see."""


class _Window:
    """A stretch of a segment file in memory, moved as reading goes on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segment, self._start, self._content = -1, 0, b""

    def look(self, position: int) -> _Place:
        """What stands at a position."""
        segment, offset = layout.split(position)
        if offset < layout.START:
            magic = self._bytes(segment, 0, layout.START)
            if magic == layout.MAGIC:
                return _Place(layout.position(segment, layout.START))
            problem = "no segment header" if magic else "segment missing"
            return _Place(problem=problem, is_blank=not any(magic))
        header = self._bytes(segment, offset, layout.HEADER.size)
        if len(header) < layout.HEADER.size or not any(header):
            problem = "no frame" if len(header) == layout.HEADER.size else "file cut off"
            return _Place(problem=problem, is_blank=not any(header))
        length, check = layout.HEADER.unpack(header)
        if length == layout.SEALED:
            return self._seal(segment, offset + layout.HEADER.size, check)
        return self._frame(segment, offset + layout.HEADER.size, length, check)

    def _frame(self, segment: int, start: int, length: int, check: int) -> _Place:
        if not 0 < length <= layout.LARGEST_BODY:
            return _Place(problem="length out of range")
        body = self._bytes(segment, start, length)
        if len(body) < length:
            return _Place(problem="frame cut off")
        behind = layout.position(segment, start + length)
        if zlib.crc32(body) != check:
            return _Place(behind, problem="wrong checksum")
        return _Place(behind, body)

    def _seal(self, segment: int, start: int, check: int) -> _Place:
        body = self._bytes(segment, start, layout.SEAL_BODY.size)
        if len(body) < layout.SEAL_BODY.size or zlib.crc32(body) != check:
            return _Place(problem="damaged seal")
        (following,) = layout.SEAL_BODY.unpack(body)
        if following <= segment:
            return _Place(problem="seal names an earlier segment")
        return _Place(layout.position(following, 0))

    def _bytes(self, segment: int, offset: int, size: int) -> bytes:
        """Bytes of a segment; fewer at the end of the file, none of a missing file."""
        start = offset - self._start
        if segment != self._segment or start < 0 or start + size > len(self._content):
            path = self._folder / layout.segment_name(segment)
            self._segment, self._start = segment, offset
            self._content = _read(path, max(size, _WINDOW), offset)
            start = 0
        return self._content[start : start + size]


def _word(page: bytes, index: int) -> int:
    return int.from_bytes(page[8 * index : 8 * index + 8], "little")


def _read(path: Path, size: int, start: int = 0) -> bytes:
    """Bytes of a regular file; none of a link, a pipe, a device or a missing file."""
    try:
        return files.read(path, size, start)
    except OSError:
        return b""
