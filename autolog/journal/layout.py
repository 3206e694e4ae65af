"""Names, positions and frames of a journal folder."""

from __future__ import annotations

import struct
import zlib

FORMAT = 1
META = "meta.json"
CONTROL = "control"
PROGRESS = "progress.json"
OWNER_LOCK = "owner.lock"
KILLED_MARKER = "sigterm"
FILES = "files"
HELD = "held"
REJECTED = "rejected.jsonl"

MAGIC = b"autolog1"
HEADER = struct.Struct("<II")
"""A frame's header: length of the body, CRC-32 of the body."""

LARGEST_BODY = 1 << 28
"""Bytes of the longest body; a greater length is damage."""

LARGEST_SEGMENT = 1 << 31
"""Bytes of the longest segment, so that an offset fits the lower half of a position."""

SEALED = 0xFFFFFFFF
"""A seal's length: its body is the number of the segment in which the journal goes on."""
SEAL_BODY = struct.Struct("<I")
SEAL_SIZE = HEADER.size + SEAL_BODY.size

CONTROL_SIZE = 4096
TAIL, FLUSH = 1, 2
"""Indexes of the control page's 64-bit little-endian words; word 0 is `MAGIC`."""

START = len(MAGIC)
"""Offset of the first frame of a segment."""


def frame(body: bytes) -> bytes:
    """A body with its header."""
    return HEADER.pack(len(body), zlib.crc32(body)) + body


def seal(following: int) -> bytes:
    """The end of a segment, which names the next one."""
    body = SEAL_BODY.pack(following)
    return HEADER.pack(SEALED, zlib.crc32(body)) + body


def position(segment: int, offset: int) -> int:
    """A place in a journal as one 64-bit number: segment << 32 | offset."""
    return segment << 32 | offset


def split(place: int) -> tuple[int, int]:
    """The segment and the offset of a position."""
    return place >> 32, place & 0xFFFFFFFF


def segment_name(segment: int) -> str:
    """The file name of a segment."""
    return f"{segment:06d}.seg"


def segment_number(name: str) -> int | None:
    """The number of a segment file; None for any other file."""
    stem, dot, ending = name.partition(".")
    is_number = stem.isascii() and stem.isdigit() and len(stem) <= len(str(SEALED))
    return int(stem) if dot and ending == "seg" and is_number else None
