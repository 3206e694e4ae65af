"""The shipper: the loop that sends what the journals of one group hold.

Live shipping and ``autolog sync`` are this loop over the same files.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from autolog import params_file, settings
from autolog.artifacts import Lane, Outcome, Upload
from autolog.batching import Pace
from autolog.delivery import Delivery, values_in
from autolog.exporters import Exporter, Retryable, RunRefused, exporter_for
from autolog.exporters.bearer import Fetch, sent_here
from autolog.feed import Entry, Feed, destination, read_meta
from autolog.journal.layout import META
from autolog.journal.owner import Life, Lock
from autolog.journal.progress import Progress
from autolog.journal.root import SHIPPER_LOCK, SHIPPER_LOG
from autolog.receipt import Sending, ShipperState, store_shipper_state
from autolog.records import Kind, model_folder
from autolog.retry import Backoff

_POLL = 0.1
_SCAN = 1.0
_IDLE = 60.0
_NICENESS = 10
"""A tenth of the share that a process without gets, where both want the processor."""
_BACKLOG, _SMALLEST_SHARE = 10_000, 250
"""Values that all journals together, and each of them, may have waiting in memory."""
_BACKLOG_BATCHES = 10
"""The same in full batches of the exporter, where that is more."""
_REST = 30.0
"""Seconds that a journal is left alone after an error which is neither the server's nor ours."""


@dataclass(slots=True)
class _Source:
    """A feed with what was read of it and is not acknowledged yet."""

    feed: Feed
    goal: int = 0
    """What the journal held when it was taken on ends here."""
    entries: list[Entry] = field(default_factory=list)
    values: int = 0
    since: float = 0.0
    delivery: Delivery | None = None
    life: Life = Life.ALIVE
    synced: int = 0
    rests_until: float = -math.inf
    is_discarded: bool = False

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
        self, exporter: Exporter, lane: Lane | None, pace: Pace, *, clock: Callable[[], float]
    ) -> None:
        """Without a `lane` files stay where they are."""
        self.backoff = Backoff(random.Random())  # noqa: S311 - no secret hangs on it
        self.problem = ""
        """Why the server was last found wanting; empty when it is well."""
        self.is_unauthorized = False
        """Whether the server wants another credential."""
        self._is_silent = False
        self.sources: dict[Path, _Source] = {}
        self._exporter, self._lane, self._pace, self._clock = exporter, lane, pace, clock
        self._backlog = max(_BACKLOG, _BACKLOG_BATCHES * exporter.limits.metrics)
        self._lane_backoff = Backoff(random.Random())  # noqa: S311
        """Files wait for values, as values do not for files."""
        self._uploading: tuple[_Source, list[str]] | None = None
        self._sending = Sending()
        self._looked = -math.inf
        self._stored = 0

    def add(self, folder: Path, *, finish: bool = False, target: str = "") -> bool:
        """Take on a journal; False when its description cannot be read.

        `finish` and `target` are those of `Feed`.
        """
        meta = read_meta(folder)
        if meta is None:
            return False
        if folder not in self.sources:
            feed = Feed(folder, meta, finish, target)
            self.sources[folder] = _Source(feed, feed.tail)
        return True

    def round(self) -> bool:
        """Take each journal a step further where that can be; True when something moved."""
        moved = False
        for source in list(self.sources.values()):
            if source.rests_until > self._clock():
                continue
            try:
                moved |= self._attend(source)
            except Exception as error:  # noqa: BLE001 - one bad journal must not cost the others
                traceback.print_exc()
                self.problem = f"{source.feed.folder.name}: {type(error).__name__}: {error}"
                source.rests_until = self._clock() + _REST
        return self._upload() or moved

    def sync_disks(self) -> None:
        """Have what is read so far survive the machine."""
        for source in self.sources.values():
            if source.life is Life.ALIVE and source.feed.position != source.synced:
                source.synced = source.feed.position
                source.feed.sync()

    def tend(self) -> None:
        """Have the exporter do what is due by the clock."""
        self._exporter.tend()

    @property
    def is_drained(self) -> bool:
        """Whether every owner is gone and the server has everything."""
        return all(source.is_drained for source in self.sources.values())

    @property
    def has_caught_up(self) -> bool:
        """Whether the server has, or will never have, what the journals held when taken on."""
        return all(map(self._has_arrived, self.sources.values()))

    @property
    def state(self) -> ShipperState:
        """What others may know of this shipper."""
        down = self.backoff.down
        silent = down and self._is_silent
        return ShipperState(os.getpid(), down, silent, self.problem, self._stored, self._sending)

    @property
    def progress(self) -> list[Progress]:
        """How far each journal has come."""
        return [source.feed.progress for source in self.sources.values()]

    @property
    def is_uploading(self) -> bool:
        """Whether a file is on its way."""
        return self._lane is not None and self._lane.busy

    @property
    def has_living(self) -> bool:
        """Whether some owner is alive."""
        return any(source.life is Life.ALIVE for source in self.sources.values())

    # -- one journal -----------------------------------------------------------------------------

    def _has_arrived(self, source: _Source) -> bool:
        if source.rests_until == math.inf:
            return True
        if source.feed.progress.uploads and self._lane is not None:
            return False
        return source.is_delivered or (
            source.feed.progress.cursor >= source.goal and source.feed.life() is Life.ALIVE
        )

    def _attend(self, source: _Source) -> bool:
        moved = self._read(source)
        if self.backoff.wait(self._clock()) == 0:
            moved |= self._send(source)
        if source.is_drained and source.life is Life.DEAD and not source.is_discarded:
            source.feed.discard_content()
            source.is_discarded = True
        return moved

    def _put_last(self, source: _Source) -> None:
        """Let the others go first next time, in case the trouble is this one's alone."""
        self.sources[source.feed.folder] = self.sources.pop(source.feed.folder)

    def _read(self, source: _Source) -> bool:
        if source.is_drained and source.life is Life.DEAD:
            return False
        readers = sum(not other.is_discarded for other in self.sources.values())
        share = max(_SMALLEST_SHARE, self._backlog // readers)
        moved = False
        while max(source.values, len(source.entries)) < share and self._read_some(source):
            moved = True
        return moved

    def _read_some(self, source: _Source) -> bool:
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
            self.problem, self.is_unauthorized = problem.reason, problem.is_unauthorized
            self._is_silent = problem.status is None
            self.backoff.failed(problem.after, self._clock())
            self._put_last(source)
            return False
        except RunRefused as refusal:
            self.problem, source.rests_until = refusal.reason, math.inf
            return True
        stored = source.feed.progress.acknowledged - before
        if stored or source.delivery.is_done:
            self.problem, self.is_unauthorized = "", False
            self.backoff.succeeded()
            self._stored += stored
        if source.delivery.is_done:
            source.feed.commit(source.delivery.position)
            source.delivery = None
        return True

    def _is_due(self, source: _Source) -> bool:
        age = self._clock() - source.since
        hurried = source.life is not Life.ALIVE or source.feed.flush_wanted()
        return self._pace.due(source.values, age, flush=hurried)

    # -- files -----------------------------------------------------------------------------------

    def _upload(self) -> bool:
        """Start or finish the upload of one file, behind all metrics that are due."""
        if self._lane is None:
            return False
        outcome = self._lane.outcome()
        if outcome is not None:
            self._uploaded(outcome)
            self._sending = Sending()
            return True
        now = self._clock()
        if not self._lane.busy:
            is_due = max(self.backoff.wait(now), self._lane_backoff.wait(now)) == 0
            return is_due and self._upload_next(self._lane)
        if now - self._looked >= _SCAN:
            self._looked = now
            self._sending = replace(self._sending, sent=self._lane.sent)
        return False

    def _upload_next(self, lane: Lane) -> bool:
        for source in self.sources.values():
            if source.delivery is not None or source.rests_until == math.inf:
                continue
            for entry in _ready(source.feed.progress.uploads):
                self._submit(lane, source, entry)
                return True
        return False

    def _submit(self, lane: Lane, source: _Source, entry: list[str]) -> None:
        run_key, file, path, kind = entry
        run_id = source.feed.progress.run_ids.get(run_key)
        spooled = source.feed.spooled(file)
        if run_id is None or spooled is None:
            self._settle(source, entry, "no regular file in the journal")
        else:
            self._uploading = source, entry
            self._sending = Sending(path, source.feed.size(file))
            lane.submit(Upload(run_id, str(spooled), path, kind))

    def _uploaded(self, outcome: Outcome) -> None:
        assert self._uploading is not None
        source, entry = self._uploading
        if outcome.problem and not outcome.is_final:
            self.problem = outcome.problem
            if outcome.is_unauthorized:
                self._exporter.refuse_token()
            self._lane_backoff.failed(outcome.after, self._clock())
            source.feed.progress.uploads.remove(entry)
            source.feed.progress.uploads.append(entry)
            self._put_last(source)
            return
        self._lane_backoff.succeeded()
        self._settle(source, entry, outcome.problem)

    def _settle(self, source: _Source, entry: list[str], refusal: str) -> None:
        """The server has a file, or never will: let go of it."""
        run_key, file, _, kind = entry
        is_ours = file == params_file.spooled_name(run_key)
        source.feed.settle_upload(entry, refusal, is_params_file=is_ours)
        spooled = source.feed.spooled(file)
        if spooled is not None and not is_ours:
            spooled.unlink()
            if kind == Kind.MODEL:
                shutil.rmtree(model_folder(str(spooled)), ignore_errors=True)


def _ready(uploads: list[list[str]]) -> Iterator[list[str]]:
    """Files to be uploaded, without versions of models that are still to come themselves."""
    coming = {run_key for run_key, _, _, kind in uploads if kind == Kind.MODEL}
    return (u for u in uploads if not (u[3] == Kind.REGISTRATION and u[0] in coming))


# -- the process -----------------------------------------------------------------------------------


def main() -> None:
    """Entry point of a shipper process: the group's folder is the only argument."""
    _give_way()
    environ = settings.environment()
    ship(Path(sys.argv[1]), environ["MLFLOW_TRACKING_URI"], sent_here())


def _give_way() -> None:
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
        chosen, _ = settings.resolve({}, settings.environment())
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
        environ = settings.shipper_environment(uri)
        exporter = exporter_for(uri, environ, token=token)
        self._lane = Lane(environ, group / SHIPPER_LOG, exporter.token)
        pace = Pace(seconds=batch_seconds)
        self._shipper = Shipper(exporter, self._lane, pace, clock=time.monotonic)
        self._target = settings.without_userinfo(uri)
        self._said: ShipperState | None = None
        self._ignored: set[Path] = set()

    def run(self) -> None:
        started = seen_living = scanned = time.monotonic() - _SCAN
        self._say()
        try:
            while True:
                now = time.monotonic()
                if now - scanned >= _SCAN:
                    scanned = now
                    self.discover()
                    self._shipper.sync_disks()
                    self._shipper.tend()
                moved = self._shipper.round()
                self._say()
                if self._shipper.has_living:
                    seen_living = now
                elif self._shipper.is_drained:
                    if self._shipper.sources or now - started > _IDLE:
                        return
                elif now - seen_living > self._linger and not self._shipper.is_uploading:
                    return
                if not moved:
                    time.sleep(_POLL)
        finally:
            self._lane.close()

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
