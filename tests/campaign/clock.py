"""A clock that processes of a training see in place of the machine's, moved while they run."""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

_AHEAD = struct.Struct("<q")


def make(path: Path) -> None:
    """Have the file of a clock that goes right."""
    path.write_bytes(_AHEAD.pack(0))


def move(path: Path, seconds: float) -> None:
    """Have who uses the clock see a time that is so far ahead of the machine's, or behind it."""
    with path.open("r+b") as file:
        file.write(_AHEAD.pack(int(seconds * 1e9)))


def use(path: Path) -> None:
    """See its time in this process, and in those that it forks."""
    with path.open("rb") as file:
        ahead = mmap.mmap(file.fileno(), _AHEAD.size, prot=mmap.PROT_READ)
    right = time.time_ns

    def shifted() -> int:
        return right() + int(_AHEAD.unpack(ahead)[0])

    time.time_ns, time.time = shifted, lambda: shifted() / 1e9
