"""`Backlog`: the files of a group that are not on the server yet."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autolog.journal.layout import FILES
from autolog.journal.owner import is_locked
from autolog.journal.root import SHIPPER_LOCK
from autolog.receipt import Sending, shipper_state


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be uploaded, the file on its way included."""

    files: int
    bytes: int
    sending: Sending
    """The file on its way; an empty one where there is none."""


def backlog(group: Path) -> Backlog:
    """The backlog of all journals of a group, whether or not anybody sends it."""
    sizes = list(_sizes(group))
    sending = shipper_state(group).sending if is_locked(group / SHIPPER_LOCK) else Sending()
    return Backlog(len(sizes), sum(sizes), sending)


def _sizes(group: Path) -> Iterator[int]:
    for folder in group.glob(f"*/{FILES}/*"):
        if folder.name.isdigit():  # else a `params.json`, which stays there
            yield from _size(folder)


def _size(folder: Path) -> Iterator[int]:
    """The bytes of what was spooled in a folder of its own: a file, or all files of a model."""
    sizes = []
    with contextlib.suppress(OSError):  # it has arrived
        for file in folder.rglob("*"):
            status = file.lstat()
            if stat.S_ISREG(status.st_mode):
                sizes.append(status.st_size)
    if sizes:
        yield sum(sizes)
