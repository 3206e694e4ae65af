"""The process that ships a group's journals, from its start until nobody needs it any more."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

from autolog import credentials, environment, settings, targets
from autolog.artifacts import Lane
from autolog.batching import Pace
from autolog.exporters import exporter_for
from autolog.exporters.bearer import Fetch, sent_here
from autolog.feed import destination, read_meta
from autolog.journal.layout import META
from autolog.journal.owner import Lock, is_locked
from autolog.journal.root import SHIPPER_LOCK, SHIPPER_LOG, SHIPPER_SUCCESSOR
from autolog.receipt import ShipperState, store_shipper_state
from autolog.shipper.loop import Shipper

_POLL = 0.1
_SCAN = 1.0
_IDLE = 60.0
_NICENESS = 10
"""A tenth of the share that a process without gets, where both want the processor."""


def main() -> None:
    """Entry point of a shipper process: the group's folder is the only argument."""
    give_way()
    environ = environment.variables()
    ship(Path(sys.argv[1]), environ["MLFLOW_TRACKING_URI"], sent_here())


def give_way() -> None:
    """Take the processor, here and in processes of ours, only where the training leaves it."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(_NICENESS)
    with contextlib.suppress(OSError):
        # Where Linux weighs sessions against each other, niceness counts only within one.
        Path("/proc/self/autogroup").write_text(str(_NICENESS))


def ship(group: Path, uri: str, token: Fetch | None = None) -> None:
    """Ship a group's journals until all is sent, or nobody is left and time is up.

    `token` gives tokens where the credential is the training process's own.
    """
    lock = Lock(group / SHIPPER_LOCK)
    if not lock.acquire():
        return
    try:
        chosen, _ = settings.resolve({}, environment.variables())
        live = _Live(group, uri, token, chosen.linger, chosen.batch_seconds)
        live.run()
    finally:
        lock.release()
    if live.discover():  # who began to log while the lock was held relies on its holder
        ship(group, uri, token)


class _Live:
    """The loop of a shipper process."""

    def __init__(
        self, group: Path, uri: str, token: Fetch | None, linger: float, batch_seconds: float
    ) -> None:
        self._group, self._linger = group, linger
        environ = credentials.shipper_environment(uri)
        exporter = exporter_for(uri, environ, token=token)
        self._lane = Lane(environ, group / SHIPPER_LOG, exporter.token)
        pace = Pace(seconds=batch_seconds)
        self._shipper = Shipper(exporter, self._lane, pace, clock=time.monotonic)
        self._target = targets.without_userinfo(uri)
        self._said: ShipperState | None = None
        self._ignored: set[Path] = set()
        self._started = self._seen_living = time.monotonic()

    def run(self) -> None:
        scanned = time.monotonic() - _SCAN
        self._say()
        try:
            while not self._is_over(time.monotonic()):
                if time.monotonic() - scanned >= _SCAN:
                    scanned = time.monotonic()
                    self.discover()
                    self._shipper.sync_disks()
                    self._shipper.tend()
                moved = self._shipper.round()
                self._say()
                if not moved:
                    time.sleep(_POLL)
        finally:
            self._lane.close()

    def _is_over(self, now: float) -> bool:
        """Whether nobody needs this process any more, or another one can do more than it."""
        if self._shipper.has_living:
            self._seen_living = now
            return False
        if self._shipper.is_drained:
            return bool(self._shipper.sources) or now - self._started > _IDLE
        if self._shipper.is_unauthorized and self._has_successor:
            return True
        return now - self._seen_living > self._linger and not self._shipper.is_uploading

    @property
    def _has_successor(self) -> bool:
        return is_locked(self._group / SHIPPER_SUCCESSOR)

    def discover(self) -> bool:
        """Take on journals that are new; True when there was one."""
        known = len(self._shipper.sources)
        for entry in os.scandir(self._group):
            folder = Path(entry.path)
            if folder in self._shipper.sources or folder in self._ignored:
                continue
            if not (folder / META).is_file():
                continue
            meta = read_meta(folder)
            if meta is None or destination(folder, meta) != self._target:
                self._ignored.add(folder)
            else:
                self._shipper.add(folder)
        return len(self._shipper.sources) > known

    def _say(self) -> None:
        """Write the state for whoever asks, when it has changed."""
        state = self._shipper.state
        if state != self._said:
            self._said = state
            store_shipper_state(self._group, state)
