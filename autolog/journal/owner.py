"""Who writes a journal, and whether that process is alive.

A lock that the kernel drops when its holder dies answers for every process under one kernel:
paused, in another container, of another user. A pid is only asked where there is no such lock.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from autolog.journal import files
from autolog.journal.layout import OWNER_LOCK

if sys.platform != "win32":
    import fcntl


class Life(Enum):
    """What is known of a journal's owner."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """A copy, or written on another machine: its run is shipped but never ended for it."""


class Lock:
    """An exclusive lock on a file, held until `release` or the death of the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Take the lock if it is free; never waits."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        fd = os.open(self.path, flags, 0o600)
        if not _lock(fd):
            os.close(fd)
            return False
        self._fd = fd
        return True

    def release(self) -> None:
        """Let go; in a forked child this leaves the parent's hold untouched."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock on an existing file."""
    try:
        return _probe(path)
    except OSError:
        return False


def _probe(path: Path) -> bool:
    with files.opened(path) as fd:
        return not _lock(fd, shared=True)


def _lock(fd: int, *, shared: bool = False) -> bool:
    """Take a lock without waiting; a shared one stands in the way of exclusive ones only."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told apart from every other one, on this machine and elsewhere."""

    pid: int
    host: str
    machine: str
    lock_inode: int

    def as_json(self) -> dict[str, Any]:
        """The owner as it stands in ``meta.json``."""
        return asdict(self)


def this_process(lock: Path) -> Owner:
    """The owner record of the calling process, which holds `lock`."""
    return Owner(os.getpid(), socket.gethostname(), _machine(), lock.stat().st_ino)


def life(folder: Path, owner: Owner) -> Life:
    """Whether the owner of a journal folder is alive."""
    lock = folder / OWNER_LOCK
    try:
        if _probe(lock):
            return Life.ALIVE
        is_original = lock.lstat().st_ino == owner.lock_inode and _machine() == owner.machine
    except OSError:
        return Life.UNKNOWN
    return Life.DEAD if is_original else Life.UNKNOWN


def _machine() -> str:
    return _first_line("/etc/machine-id") or socket.gethostname()


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.readline().strip()
    except (OSError, ValueError):
        return ""
