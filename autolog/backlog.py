"""`Backlog`: the files of a group that are not on the server yet."""

from __future__ import annotations

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
    for file in group.glob(f"*/{FILES}/*/*"):
        if not file.parent.name.isdigit():  # a `params.json`, which stays there
            continue
        try:
            status = file.lstat()
        except OSError:  # it has arrived
            continue
        if stat.S_ISREG(status.st_mode):
            yield status.st_size
