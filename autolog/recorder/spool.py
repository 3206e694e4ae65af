"""`Spool`: copies of files in the journal, where they wait for their upload."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from autolog.journal import files, layout
from autolog.journal.writer import Journal
from autolog.recorder.models import Budget, Model

_PART = 64 << 20
"""Bytes that the kernel copies before a signal has its turn."""
_LOOKS = 100
"""How many times as long as a look at all files takes must pass before the next one."""


class NoRoom(Exception):
    """The files of a journal that wait take all that they may; the message names the setting."""


class Room:
    """How much of a journal's limit the files that wait for their upload take.

    That is the limit's bytes, and the one file that goes past it. It is reckoned, and looked at
    only where it seems to be used up: what has been uploaded meanwhile makes room.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._taken = 0
        self._look_at = -math.inf

    def expect(self) -> None:
        """Raise `NoRoom` where no file can be added."""
        if self._taken >= self._limit and time.monotonic() >= self._look_at:
            self._look()
        if self._taken >= self._limit:
            raise NoRoom(f"the files that wait to be sent take journal_limit={self._limit}")

    def take(self, size: int) -> None:
        """Count what was added."""
        self._taken += size

    def _look(self) -> None:
        """Take a look at each file; the longer that takes, the longer until the next one."""
        begun = time.monotonic()
        self._taken = _size(self._folder)
        ended = time.monotonic()
        self._look_at = ended + _LOOKS * (ended - begun)


_rooms: weakref.WeakKeyDictionary[Journal, Room] = weakref.WeakKeyDictionary()


class Spool:
    """The ``files`` folder of a journal; each file has a folder of its own there.

    Raises `OSError` where the disk has no room, or there is no reading what is to be copied.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._folder = journal.folder / layout.FILES
        self._room = _rooms.setdefault(journal, Room(self._folder, journal.limit))

    def copy(self, source: Path, path: str) -> str:
        """Copy a file that becomes the artifact `path`; its place in the folder.

        What is written to the file afterwards is not in the copy. It is a reflink where the
        filesystem has them, and takes no memory however large it is.
        Raises `NoRoom`.
        """
        self._room.expect()
        with open(source, "rb") as given:
            place = self._place(path)
            try:
                with _created(place) as kept:
                    _copy(given, kept)
            except BaseException:
                shutil.rmtree(place.parent, ignore_errors=True)
                raise
        self._room.take(place.stat().st_size)
        return _name(place)

    def write(self, content: bytes, path: str) -> str:
        """Write what becomes the artifact `path`, which is small; its place in the folder."""
        place = self._place(path)
        with _created(place) as file:
            file.write(content)
        self._room.take(len(content))
        return _name(place)

    def model(self, model: Model, budget: Budget, facts: Mapping[str, object]) -> str:
        """Serialise a model into a folder, with its description beside it; the latter's place.

        `facts` go into the description too. Raises `NoRoom`, and whatever serialising raises.
        """
        self._room.expect()
        place = self._place("model.json")
        try:
            folder = place.with_suffix("")
            folder.mkdir(mode=0o700)
            model.save(folder, budget)
            files.replace(place, json.dumps({**model.described(), **facts}).encode())
        except BaseException:
            shutil.rmtree(place.parent, ignore_errors=True)
            raise
        self._room.take(_size(folder))
        return _name(place)

    def _place(self, path: str) -> Path:
        folder = self._folder / f"{next(self._journal.ids):06d}"
        folder.mkdir(mode=0o700)
        return folder / path.rpartition("/")[2]


def _created(place: Path) -> BinaryIO:
    return open(place, "xb", opener=files.private)


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    # The kernel makes a reflink of it on Btrfs, XFS and their like; it cannot copy from another
    # kind of filesystem, and takes a file of /proc for empty: what it leaves is copied by hand.
    with contextlib.suppress(OSError, AttributeError):
        while os.copy_file_range(source.fileno(), target.fileno(), _PART):
            pass
    shutil.copyfileobj(source, target)


def _size(folder: Path) -> int:
    """The bytes of all files below a folder."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # it has just arrived
                size += Path(place, name).lstat().st_size
    return size


def _name(place: Path) -> str:
    return f"{place.parent.name}/{place.name}"
