"""`Receipt`: the account of what became of the values that were logged."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from autolog.journal import files, progress
from autolog.journal.root import SHIPPER_STATE
from autolog.journal.writer import Journal

_SHOWN = 3
"""How many reasons a line has room for."""


@dataclass(frozen=True)
class Receipt:
    """What became of every value; a value is one metric point, param, tag or file."""

    logged: int = 0
    acknowledged: int = 0
    """Stored by the server."""
    pending: int = 0
    """Safe in the journal, not sent yet."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Refused by the server, by its reason."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Never stored, by reason: bad values, no room on the disk."""

    @property
    def complete(self) -> bool:
        """True when the server has everything that was logged."""
        return not (self.pending or self.rejected or self.dropped)

    def __str__(self) -> str:
        parts = [f"{self.logged} logged", f"{self.acknowledged} stored"]
        parts += [f"{self.pending} pending"] if self.pending else []
        return ", ".join(
            parts + _counts("refused", self.rejected) + _counts("dropped", self.dropped)
        )


def _counts(what: str, by_reason: Mapping[str, int]) -> list[str]:
    """A part for each of the most frequent reasons, and one for the rest."""
    ranked = sorted(by_reason.items(), key=lambda pair: -pair[1])
    rest = sum(count for _, count in ranked[_SHOWN:])
    parts = [f"{count} {what} ({reason})" for reason, count in ranked[:_SHOWN]]
    return [*parts, f"{rest} {what} for other reasons"] if rest else parts


def account(journals: Iterable[Journal]) -> Receipt:
    """The receipt of this process's journals, as far as their shipper has come."""
    logged = acknowledged = 0
    rejected: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for journal in journals:
        state = progress.load(journal.folder)
        logged += journal.logged
        acknowledged += state.acknowledged
        rejected.update(state.rejected)
        dropped.update(journal.dropped)
    pending = max(0, logged - acknowledged - sum(rejected.values()) - sum(dropped.values()))
    return Receipt(logged, acknowledged, pending, dict(+rejected), dict(+dropped))


@dataclass(frozen=True, slots=True)
class Sending:
    """A file on its way to the server."""

    path: str = ""
    """The artifact's path in its run; empty for no file."""
    size: int = 0
    sent: int = 0
    """How many of its bytes the process that uploads has read; 0 where the system does not say.

    Begins anew with each attempt.
    """


@dataclass(frozen=True, slots=True)
class ShipperState:
    """What the shipper of a group last said of itself."""

    pid: int | None = None
    down: bool = False
    """True while the server does not answer as it should."""
    silent: bool = False
    """True while it does not answer at all."""
    problem: str = ""
    stored: int = 0
    """Values that the server has taken since this shipper started."""
    sending: Sending = Sending()

    @property
    def is_running(self) -> bool:
        """Whether that shipper is still there, as far as a process can tell."""
        try:
            os.kill(self.pid or 0, 0)
        except OSError:
            return False
        return self.pid is not None


def shipper_state(group: Path) -> ShipperState:
    """The state of a group's shipper; an empty one where none has worked yet."""
    try:
        content = json.loads(files.read(group / SHIPPER_STATE))
        pid, stored = int(content["pid"]), int(content["stored"])
        down, silent = bool(content["down"]), bool(content["silent"])
        file = content["sending"]
        sending = Sending(str(file["path"]), int(file["size"]), int(file["sent"]))
        return ShipperState(pid, down, silent, str(content["problem"]), stored, sending)
    except (OSError, ValueError, KeyError, TypeError):
        return ShipperState()


def store_shipper_state(group: Path, state: ShipperState) -> None:
    """Say the state of a group's shipper to whoever asks, if there is room for it."""
    with contextlib.suppress(OSError):
        files.replace(group / SHIPPER_STATE, json.dumps(asdict(state)).encode())
