"""Reading and writing files in a folder that nobody vouches for.

A link, a pipe or a device in the place of a file is an `OSError`, never followed and never waited
for; so is a second name of a file that stands elsewhere, where something would be written to it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

LARGEST = 1 << 26
"""Bytes that a file read whole may have."""

_FLAGS = os.O_CLOEXEC if os.name == "posix" else getattr(os, "O_BINARY", 0)
_FLAGS |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """A regular file, open for reading; raises `OSError` for anything else."""
    fd = os.open(path, os.O_RDONLY | _FLAGS)
    try:
        _check(fd, path)
        yield fd
    finally:
        os.close(fd)


def read(path: Path, size: int = LARGEST, start: int = 0) -> bytes:
    """Up to `size` bytes of a regular file; raises `OSError` for anything else."""
    with opened(path) as fd:
        os.lseek(fd, start, os.SEEK_SET)
        # Python has the memory for all that is asked for before it reads.
        return os.read(fd, min(size, os.fstat(fd).st_size))


def private(path: str, flags: int) -> int:
    """An opener for `open`: a file that it makes is of mode 0600."""
    return os.open(path, flags, 0o600)


def replace(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 whole or not at all; whatever else bore its name is gone."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
    partial.replace(path)


def append(path: Path, content: bytes) -> None:
    """Add to the end of a file, made with mode 0600 if need be."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _FLAGS, 0o600)
    with open(fd, "ab") as file:
        _check(fd, path, links=1)
        file.write(content)


def holds_linked_folder(folder: Path) -> bool:
    """Whether a folder anywhere inside this one is in truth a link to somewhere else."""
    return any(
        (Path(place) / name).is_symlink()
        for place, names, _ in os.walk(folder, followlinks=False)
        for name in names
    )


def _check(fd: int, path: Path, links: int | None = None) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path} is not a regular file")
    if links is not None and status.st_nlink != links:
        raise OSError(f"{path} is also the name of a file elsewhere")
