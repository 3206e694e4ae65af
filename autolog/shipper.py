"""The shipper: the loop that sends what the journals of one group hold.

Live shipping and ``autolog sync`` are this loop over the same files.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from autolog import settings
from autolog.artifacts import Lane, Upload
from autolog.batching import Pace
from autolog.delivery import Delivery, values_in
from autolog.exporters import Exporter, Retryable, exporter_for
from autolog.feed import Entry, Feed, read_meta
from autolog.journal.layout import META
from autolog.journal.owner import Life, Lock
from autolog.journal.root import SHIPPER_LOCK, SHIPPER_LOG, SHIPPER_STATE
from autolog.retry import Backoff

_POLL = 0.1
_SCAN = 1.0
_IDLE = 60.0
_BACKLOG = 20_000


@dataclass(slots=True)
class _Source:
    """A feed with what was read of it and is not acknowledged yet."""

    feed: Feed
    entries: list[Entry] = field(default_factory=list)
    values: int = 0
    since: float = 0.0
    delivery: Delivery | None = None
    life: Life = Life.ALIVE
    synced: int = 0

    @property
    def is_drained(self) -> bool:
        """Whether the server has everything that the journal will ever hold."""
        return self.is_delivered and not self.feed.progress.uploads

    @property
    def is_delivered(self) -> bool:
        """The same, files aside."""
        return self.life is not Life.ALIVE and not self.entries and self.delivery is None


class Shipper:
    """Ships journals of one target; `round` does what can be done now."""

    def __init__(
        self, exporter: Exporter, lane: Lane, pace: Pace, *, clock: Callable[[], float]
    ) -> None:
        self.backoff = Backoff(random.Random())
        self.problem = ""
        """Why the server was last found wanting; empty when it is well."""
        self.sources: dict[Path, _Source] = {}
        self._exporter, self._lane, self._pace, self._clock = exporter, lane, pace, clock

    def add(self, folder: Path, *, finish: bool = False) -> bool:
        """Take on a journal; False when its description cannot be read."""
        meta = read_meta(folder)
        if meta is None:
            return False
        if folder not in self.sources:
            self.sources[folder] = _Source(Feed(folder, meta, finish))
        return True

    def round(self) -> bool:
        """Read, send and commit what can be; True when something moved."""
        moved = False
        for source in self.sources.values():
            moved |= self._read(source)
            if self.backoff.wait(self._clock()) == 0:
                moved |= self._send(source)
        return self._upload() or moved

    def sync_disks(self) -> None:
        """Have what is read so far survive the machine."""
        for source in self.sources.values():
            if source.life is Life.ALIVE and source.feed.position != source.synced:
                source.synced = source.feed.position
                source.feed.sync()

    @property
    def is_drained(self) -> bool:
        """Whether every owner is gone and the server has everything."""
        return all(source.is_drained for source in self.sources.values())

    @property
    def has_living(self) -> bool:
        """Whether some owner is alive."""
        return any(source.life is Life.ALIVE for source in self.sources.values())

    # -- one journal -----------------------------------------------------------------------------

    def _read(self, source: _Source) -> bool:
        if source.values >= _BACKLOG or source.is_drained and source.life is Life.DEAD:
            return False
        # Life before content: an owner found dead has nothing more to write.
        life = source.feed.life()
        entries = source.feed.read(life)
        if not source.entries and entries:
            source.since = self._clock()
        source.entries += entries
        source.values += values_in(entry.record for entry in entries)
        if not entries:
            source.life = life
        return bool(entries)

    def _send(self, source: _Source) -> bool:
        if source.delivery is None:
            if not source.entries or not self._is_due(source):
                return False
            source.delivery = Delivery(source.feed, source.entries, self._exporter)
            source.entries, source.values = [], 0
        before = source.feed.progress.acknowledged
        try:
            source.delivery.advance()
        except Retryable as problem:
            self.problem = problem.reason
            self.backoff.failed(problem.after, self._clock())
            return source.feed.progress.acknowledged != before
        self.problem = ""
        self.backoff.succeeded()
        source.feed.commit(source.delivery.position, is_original=source.life is not Life.UNKNOWN)
        source.delivery = None
        if source.is_drained and source.life is Life.DEAD:
            source.feed.discard_content()
        return True

    def _is_due(self, source: _Source) -> bool:
        age = self._clock() - source.since
        hurried = source.life is not Life.ALIVE or source.feed.flush_wanted()
        return hurried or age >= self._pace.seconds or source.values >= self._pace.values

    # -- files -----------------------------------------------------------------------------------

    def _upload(self) -> bool:
        """Start or finish the upload of one file, behind all metrics that are due."""
        outcome = self._lane.outcome()
        if outcome is not None:
            self._uploaded(outcome.upload, outcome.problem, is_final=outcome.is_final)
            return True
        if self._lane.busy or self.backoff.wait(self._clock()) > 0:
            return False
        for source in self.sources.values():
            if source.delivery is not None:
                continue
            for run_key, file, path in source.feed.progress.uploads:
                run_id = source.feed.progress.run_ids.get(run_key)
                spooled = source.feed.spooled(file)
                if run_id is None or spooled is None:
                    self._refuse(source, [run_key, file, path], "no regular file in the journal")
                    return True
                self._lane.submit(Upload(run_id, str(spooled), path.rpartition("/")[0]))
                return True
        return False

    def _uploaded(self, upload: Upload, problem: str, *, is_final: bool) -> None:
        for source in self.sources.values():
            for entry in source.feed.progress.uploads:
                if upload.file != str(source.feed.spooled(entry[1])):
                    continue
                if problem and not is_final:
                    self.problem = problem
                    self.backoff.failed(None, self._clock())
                elif problem:
                    self._refuse(source, entry, problem)
                else:
                    source.feed.progress.acknowledged += entry[2] != "params.json"
                    self._forget(source, entry)
                return

    def _refuse(self, source: _Source, entry: list[str], reason: str) -> None:
        source.feed.reject(reason, 1)
        self._forget(source, entry)

    def _forget(self, source: _Source, entry: list[str]) -> None:
        source.feed.progress.uploads.remove(entry)
        source.feed.store()
        spooled = source.feed.spooled(entry[1])
        if spooled is not None and entry[2] != "params.json":
            spooled.unlink()


# -- the process -----------------------------------------------------------------------------------


def main() -> None:
    """Entry point of a shipper process: the group's folder is the only argument."""
    environ = settings.environment()
    ship(Path(sys.argv[1]), environ["MLFLOW_TRACKING_URI"])


def ship(group: Path, uri: str) -> None:
    """Ship a group's journals until all is sent, or nobody is left and time is up."""
    lock = Lock(group / SHIPPER_LOCK)
    if not lock.acquire():
        return
    try:
        chosen, _ = settings.resolve({}, settings.environment())
        _Live(group, uri, chosen.linger, chosen.batch_seconds).run()
    finally:
        lock.release()


class _Live:
    """The loop of a shipper process."""

    def __init__(self, group: Path, uri: str, linger: float, batch_seconds: float) -> None:
        self._group, self._linger = group, linger
        environ = settings.shipper_environment(uri)
        self._lane = Lane(environ, group / SHIPPER_LOG)
        self._shipper = Shipper(
            exporter_for(uri, environ),
            self._lane,
            Pace(seconds=batch_seconds),
            clock=time.monotonic,
        )
        self._target = settings.without_userinfo(uri)
        self._said: tuple[bool, str] | None = None
        self._ignored: set[Path] = set()

    def run(self) -> None:
        started = seen_living = scanned = time.monotonic() - _SCAN
        try:
            while True:
                now = time.monotonic()
                if now - scanned >= _SCAN:
                    scanned = now
                    self._discover()
                    self._shipper.sync_disks()
                moved = self._shipper.round()
                self._say()
                if self._shipper.has_living:
                    seen_living = now
                elif self._shipper.is_drained:
                    if self._shipper.sources or now - started > _IDLE:
                        return
                elif now - seen_living > self._linger:
                    return
                if not moved:
                    time.sleep(_POLL)
        finally:
            self._lane.close()

    def _discover(self) -> None:
        for entry in os.scandir(self._group):
            folder = Path(entry.path)
            if folder in self._shipper.sources or folder in self._ignored:
                continue
            if not (folder / META).is_file():
                continue
            meta = read_meta(folder)
            if meta is None or meta.target != self._target or not self._shipper.add(folder):
                self._ignored.add(folder)

    def _say(self) -> None:
        """Write the state for whoever asks, when it has changed."""
        state = (self._shipper.backoff.down, self._shipper.problem)
        if state == self._said:
            return
        self._said = state
        content = {"pid": os.getpid(), "down": state[0], "problem": state[1]}
        path = self._group / SHIPPER_STATE
        partial = path.with_suffix(".partial")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(content, file)
        os.replace(partial, path)
