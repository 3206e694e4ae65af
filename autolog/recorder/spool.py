"""`Spool`: copies of files in the journal, where they wait for their upload."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from autolog.journal import files, layout
from autolog.journal.writer import Journal
from autolog.recorder.models import Budget, Model, OverBudget

_PART = 64 << 20
"""Bytes that the kernel copies before a signal has its turn."""


class Spool:
    """The ``files`` folder of a journal; each file has a folder of its own there.

    Raises `OSError` where there is no room, or no reading what is to be copied.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def copy(self, source: Path, path: str) -> str:
        """Copy a file that becomes the artifact `path`; its place in the folder.

        What is written to the file afterwards is not in the copy. It is a reflink where the
        filesystem has them, and takes no memory however large it is.
        """
        with open(source, "rb") as given:
            place = self._place(path)
            try:
                with _created(place) as kept:
                    _copy(given, kept)
            except BaseException:
                shutil.rmtree(place.parent, ignore_errors=True)
                raise
        return _name(place)

    def write(self, content: bytes, path: str) -> str:
        """Write what becomes the artifact `path`; its place in the folder."""
        place = self._place(path)
        with _created(place) as file:
            file.write(content)
        return _name(place)

    def expect_room(self, most: int) -> None:
        """Raise `OverBudget` where what waits for its upload takes as many bytes, or more."""
        waiting = 0
        for file in (self._journal.folder / layout.FILES).rglob("*"):
            with contextlib.suppress(OSError):  # it has just arrived
                waiting += file.lstat().st_size
        if waiting >= most:
            raise OverBudget(f"the files that wait to be sent take journal_limit={most}")

    def model(self, model: Model, budget: Budget, facts: Mapping[str, object]) -> str:
        """Serialise a model into a folder, with its description beside it; the latter's place.

        `facts` go into the description too. Raises whatever serialising raises.
        """
        place = self._place("model.json")
        try:
            folder = place.with_suffix("")
            folder.mkdir(mode=0o700)
            model.save(folder, budget)
            files.replace(place, json.dumps({**model.described(), **facts}).encode())
        except BaseException:
            shutil.rmtree(place.parent, ignore_errors=True)
            raise
        return _name(place)

    def _place(self, path: str) -> Path:
        folder = self._journal.folder / layout.FILES / f"{next(self._journal.ids):06d}"
        folder.mkdir(mode=0o700)
        return folder / path.rpartition("/")[2]


def _created(place: Path) -> BinaryIO:
    return open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    # The kernel makes a reflink of it on Btrfs, XFS and their like; it cannot copy from another
    # kind of filesystem, and takes a file of /proc for empty: what it leaves is copied by hand.
    with contextlib.suppress(OSError, AttributeError):
        while os.copy_file_range(source.fileno(), target.fileno(), _PART):
            pass
    shutil.copyfileobj(source, target)


def _name(place: Path) -> str:
    return f"{place.parent.name}/{place.name}"
