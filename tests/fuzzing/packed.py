"""A journal folder as one string of bytes, which a fuzzer changes, and back: any bytes are one."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from autolog.journal import layout

NAMES = (
    layout.META,
    layout.PROGRESS,
    layout.CONTROL,
    layout.OWNER_LOCK,
    layout.KILLED_MARKER,
    *(layout.segment_name(number) for number in (0, 1, 2, 7)),
)
_HEAD = struct.Struct("<BH")
_CUT, _LINKED = 0x80, 0x40
_ROOM = 64
"""Zeros behind the frames of a segment that is not cut."""


@dataclass(frozen=True)
class File:
    """One file of a journal: the zeros at its end are not in `content`."""

    name: str
    content: bytes
    is_cut: bool = False
    """There are no zeros at its end."""
    is_link: bool = False
    """It is a link to a file elsewhere."""

    @property
    def on_disk(self) -> bytes:
        """What is written to the folder."""
        if self.is_cut:
            return self.content
        if self.name == layout.CONTROL:
            return self.content.ljust(layout.CONTROL_SIZE, b"\0")
        return self.content + bytes(_ROOM if self.segment is not None else 0)

    @property
    def segment(self) -> int | None:
        """The number of a segment; None for any other file."""
        return layout.segment_number(self.name)


@dataclass(frozen=True)
class Packed:
    """A journal, and in `choices` a byte of how to read it."""

    choices: int
    files: tuple[File, ...]

    def to_bytes(self) -> bytes:
        """The string of bytes."""
        return bytes([self.choices]) + b"".join(map(_packed, self.files))

    @classmethod
    def from_bytes(cls, data: bytes) -> Packed:
        """The journal that any bytes are; of files with one name the last counts."""
        found = {file.name: file for file in _unpacked(data)}
        return cls(data[0] if data else 0, tuple(found.values()))

    @classmethod
    def from_folder(cls, folder: Path, choices: int = 0) -> Packed:
        """The journal in a folder, less what has no place in a packed one."""
        given = ((name, folder / name) for name in NAMES if (folder / name).is_file())
        files = (File(name, path.read_bytes().rstrip(b"\0")) for name, path in given)
        return cls(choices, tuple(files))

    def write(self, folder: Path, elsewhere: Path) -> None:
        """Make the files; `elsewhere` is what links lead to."""
        for file in self.files:
            path = folder / file.name
            if file.is_link:
                path.symlink_to(elsewhere)
            else:
                path.write_bytes(file.on_disk)

    def segments(self) -> dict[int, bytes]:
        """What stands in the segments that can be read."""
        return {
            file.segment: file.on_disk
            for file in self.files
            if file.segment is not None and not file.is_link
        }

    def content(self, name: str) -> bytes | None:
        """What stands in a file that can be read."""
        found = [file.on_disk for file in self.files if file.name == name and not file.is_link]
        return found[0] if found else None

    def repaired(self) -> Packed:
        """The same with the checksums that its bytes should have."""
        return replace(self, files=tuple(map(_repaired, self.files)))


def bodies(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Offset and body of each frame of a segment, as far as the lengths are sound."""
    offset = layout.START
    while offset + layout.HEADER.size <= len(content):
        length, _ = layout.HEADER.unpack_from(content, offset)
        size = layout.SEAL_BODY.size if length == layout.SEALED else length
        start = offset + layout.HEADER.size
        if not 0 < size <= len(content) - start:
            return
        yield offset, content[start : start + size]
        offset = start + size


def _packed(file: File) -> bytes:
    flags = _CUT * file.is_cut | _LINKED * file.is_link
    return _HEAD.pack(NAMES.index(file.name) | flags, len(file.content)) + file.content


def _unpacked(data: bytes) -> Iterator[File]:
    offset = 1
    while offset + _HEAD.size <= len(data):
        kind, size = _HEAD.unpack_from(data, offset)
        offset += _HEAD.size
        name = NAMES[(kind & ~(_CUT | _LINKED)) % len(NAMES)]
        content = data[offset : offset + size]
        yield File(name, content, bool(kind & _CUT), bool(kind & _LINKED))
        offset += size


def _repaired(file: File) -> File:
    if file.name == layout.PROGRESS:
        _, _, text = file.content.partition(b" ")
        checked = f"{zlib.crc32(text.rstrip(chr(10).encode())):08x} ".encode() + text
        return replace(file, content=checked)
    if file.name == layout.CONTROL:
        return replace(file, content=layout.MAGIC + file.content[len(layout.MAGIC) :])
    if file.segment is None:
        return file
    repaired = bytearray(layout.MAGIC + file.content[len(layout.MAGIC) :])
    for offset, body in bodies(file.content):
        length, _ = layout.HEADER.unpack_from(repaired, offset)
        layout.HEADER.pack_into(repaired, offset, length, zlib.crc32(body))
    return replace(file, content=bytes(repaired))
