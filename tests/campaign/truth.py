"""What a training has done: its processes tell, call by call, and whoever judges reads it.

A process appends an `Outcome` to its file when a call has returned: what stands there, autolog has
promised to keep, however the process ended.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

WORKLOAD = "workload.json"
HOST, CHILD = "host.calls", "child.calls"
CHILD_PID = "child.pid"
CLOCK = "clock"
GO = "go"
"""Without this file the training waits behind its first call."""
SAID = "training.log"

_OUTCOME = struct.Struct("<qQ")


class Outcome(NamedTuple):
    """What became of a call that has returned."""

    dropped: int
    """Values that were dropped and counted; -1 where no disk could hold a journal."""
    tail: int
    """Where the process's journal ended then."""


class Teller:
    """Writes down the calls of one process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(self, outcome: Outcome) -> None:
        """A call has returned; in one system call, so that no kill can come between."""
        os.write(self._file, _OUTCOME.pack(*outcome))


def outcomes(path: Path) -> list[Outcome]:
    """The calls that a process has returned from."""
    content = path.read_bytes() if path.exists() else b""
    return [Outcome(*each) for each in _OUTCOME.iter_unpack(content)]


def has_begun(path: Path) -> bool:
    """Whether a process has returned from a call."""
    return path.exists() and path.stat().st_size > 0
