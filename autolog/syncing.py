"""`autolog sync`: has what journals still hold sent, wherever the journals are found.

Where a shipper is at work on a group its progress is watched; elsewhere this process ships. A
shipper whose credential is refused gives way, once the trainings that could renew it have ended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from autolog import held, targets
from autolog.access import Access, Denied, Gate
from autolog.artifacts import Lane
from autolog.batching import Pace
from autolog.exporters import exporter_for
from autolog.feed import destination, read_meta
from autolog.journal import progress
from autolog.journal.layout import HELD
from autolog.journal.owner import Life, Lock, is_locked
from autolog.journal.progress import Progress
from autolog.journal.root import SHIPPER_LOCK, SHIPPER_SUCCESSOR, group_of, journals
from autolog.receipt import Sending, ShipperState, shipper_state, store_shipper_state
from autolog.shipper import Shipper
from autolog.standing import Standing, inspect

_POLL = 0.1
_UNAUTHORIZED_PATIENCE = 5.0


class Display(Protocol):
    """Where the user sees what goes on."""

    def start(self, title: str, total: int) -> None:
        """Some journals of one target are next; `total` values wait."""

    def update(self, done: int, problem: str) -> None:
        """So many of them are dealt with; `problem` says what the server lacks now."""

    def stop(self) -> None:
        """That is all of these journals."""


@dataclass(frozen=True, slots=True)
class Left:
    """What could not be sent from a journal, and why."""

    folder: Path
    reasons: list[str]


@dataclass(slots=True)
class _Haul:
    """Journals of one group that go to one target."""

    group: Path
    access: Access
    is_redirected: bool
    """Whether a shipper at work would send them elsewhere."""
    before: dict[Path, Standing] = field(default_factory=dict)

    @property
    def is_sent(self) -> bool:
        """Whether there is nothing to do; a run set aside has to be let go of, even when sent."""
        return all(s.is_sent and s.folder.parent.name != HELD for s in self.before.values())


class Sync:
    """Sends journals, one group and target after the other."""

    def __init__(self, gate: Gate, display: Display, *, finish: bool, timeout: float) -> None:
        """`finish` takes copies for complete; `timeout` is the longest standstill in seconds."""
        self._gate, self._display = gate, display
        self._finish, self._timeout = finish, timeout
        self._denied: list[Left] = []
        self._given_up: dict[Access, str] = {}
        self._unauthorized: set[Access] = set()

    def run(self, folders: Iterable[Path]) -> list[Left]:
        """Send what these journals hold; returns what is left."""
        left = []
        for haul in self._hauls(folders):
            if haul.is_sent:
                left += self._left_of(haul, "")
                continue
            self._display.start(_title(haul), sum(s.pending for s in haul.before.values()))
            try:
                problem = self._given_up.get(haul.access) or self._send(haul)
            except OSError as error:
                problem = str(error)
            finally:
                self._display.stop()
            left += self._left_of(haul, problem)
        return self._denied + left

    def _hauls(self, folders: Iterable[Path]) -> list[_Haul]:
        hauls: dict[tuple[Path, Access], _Haul] = {}
        for folder in folders:
            meta = read_meta(folder)
            if meta is None:
                self._denied.append(Left(folder, list(inspect(folder).left())))
                continue
            target = destination(folder, meta)
            try:
                access = self._gate.admit(folder, target)
            except Denied as denial:
                standing = inspect(folder, finish=self._finish)
                if not standing.is_complete:
                    self._denied.append(Left(folder, [*standing.left(), str(denial)]))
                continue
            standing = inspect(folder, finish=self._finish, target=access.target)
            group = group_of(folder)
            new = _Haul(group, access, access.target != target)
            hauls.setdefault((group, access), new).before[folder] = standing
        return list(hauls.values())

    def _left_of(self, haul: _Haul, problem: str) -> list[Left]:
        left = []
        # Runs may have been set aside on the way, and such ones sent and let go of.
        for folder in sorted({place for given in haul.before for place in journals(given)}):
            standing = inspect(folder, finish=self._finish, target=haul.access.target)
            reasons = list(standing.left())
            if problem and not standing.is_sent:
                reasons.append(f"{haul.access.target}: {problem}")
            if self._lacks_trust(haul.access, standing):
                reasons.append(
                    "neither --to nor MLFLOW_TRACKING_URI names this target, so credentials and "
                    f"files do not go there: autolog sync {folder} --to {haul.access.target}"
                )
            if reasons:
                left.append(Left(folder, reasons))
        return left

    def _lacks_trust(self, access: Access, standing: Standing) -> bool:
        wants_more = standing.files or access in self._unauthorized
        return not (access.is_trusted or standing.is_sent) and bool(wants_more)

    # -- one haul --------------------------------------------------------------------------------

    def _send(self, haul: _Haul) -> str:
        """Ship, or watch who does; returns why it came to a standstill, empty if it did not."""
        successor = Lock(haul.group / SHIPPER_SUCCESSOR)
        successor.acquire()
        try:
            return self._ship_or_watch(haul, Lock(haul.group / SHIPPER_LOCK))
        finally:
            successor.release()

    def _ship_or_watch(self, haul: _Haul, lock: Lock) -> str:
        while True:
            if lock.acquire():
                try:
                    return self._ship(haul)
                finally:
                    lock.release()
            if haul.is_redirected:
                return f"{_sender(haul.group)} sends it to its own target; end that process first"
            outcome = self._watch(haul)
            if outcome is not None:
                return outcome

    def _ship(self, haul: _Haul) -> str:
        access = haul.access
        environ = access.environment()
        exporter = exporter_for(access.uri, environ, use_saved=access.is_trusted)
        # Where the user's credentials may not go, mlflow's own client may not go either.
        lane = Lane(environ, Path(os.devnull), exporter.token) if access.is_trusted else None
        shipper = Shipper(exporter, lane, Pace(seconds=0), clock=time.monotonic)
        for folder in haul.before:
            shipper.add(folder, finish=self._finish, target=access.target)
        try:
            problem = self._drive(haul, shipper)
        finally:
            exporter.close()
            if lane is not None:
                lane.close()
        if problem:
            self._given_up[access] = problem
        if shipper.is_unauthorized:
            self._unauthorized.add(access)
        for folder in haul.before:
            if folder.parent.name == HELD and inspect(folder).is_complete:
                held.release(folder)
        return problem

    def _drive(self, haul: _Haul, shipper: Shipper) -> str:
        standstill, said = _Standstill(), None
        first = _settled(shipper.progress)
        while True:
            moved = shipper.round()
            if shipper.state != said:
                said = shipper.state
                store_shipper_state(haul.group, said)
            self._display.update(_settled(shipper.progress) - first, shipper.problem)
            if shipper.has_caught_up:
                return ""
            patience = _UNAUTHORIZED_PATIENCE if shipper.is_unauthorized else self._timeout
            stood = standstill.seconds(shipper.progress, shipper.state.sending)
            if stood > min(patience, self._timeout) and not shipper.is_uploading:
                return shipper.problem or f"nothing moved for {self._timeout:.0f} s"
            if not moved:
                time.sleep(_POLL)

    def _watch(self, haul: _Haul) -> str | None:
        """Follow the shipper at work; None when it is gone."""
        standstill = _Standstill()
        lock = haul.group / SHIPPER_LOCK
        first = _settled(map(progress.load, haul.before))
        while is_locked(lock):
            states = [progress.load(folder) for folder in haul.before]
            shipper = shipper_state(haul.group)
            self._display.update(_settled(states) - first, shipper.problem)
            if all(map(self._has_arrived, haul.before.values(), states)):
                return ""
            if standstill.seconds(states, shipper.sending) > self._timeout:
                return f"{_sender(haul.group)} is stuck: {shipper.problem or 'nothing moves'}"
            time.sleep(_POLL)
        return None

    def _has_arrived(self, before: Standing, now: Progress) -> bool:
        if now.cursor < before.goal or now.uploads:
            return False
        return before.life is Life.ALIVE or inspect(before.folder).is_sent


class _Standstill:
    """How long nothing has moved."""

    def __init__(self) -> None:
        self._mark: object = None
        self._since = time.monotonic()

    def seconds(self, states: Iterable[Progress], sending: Sending) -> float:
        """Seconds since the states, and the file on its way, were last different."""
        mark = sending, [(state.cursor, state.settled, len(state.uploads)) for state in states]
        if mark != self._mark:
            self._mark, self._since = mark, time.monotonic()
        return time.monotonic() - self._since


def _settled(states: Iterable[Progress]) -> int:
    return sum(state.settled for state in states)


def _title(haul: _Haul) -> str:
    target = targets.without_userinfo(haul.access.uri)
    if is_locked(haul.group / SHIPPER_LOCK) and not haul.is_redirected:
        return f"{target}: {_sender(haul.group)} is sending; watching it"
    return target


def _sender(group: Path) -> str:
    state: ShipperState = shipper_state(group)
    return "a shipper" if state.pid is None else f"process {state.pid}"
