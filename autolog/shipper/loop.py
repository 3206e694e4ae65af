"""`Shipper`: the loop that takes each journal of a group a step further.

Live shipping and ``autolog sync`` are this loop over the same files.
"""

from __future__ import annotations

import math
import os
import random
import traceback
from collections.abc import Callable
from pathlib import Path

from autolog.artifacts import Lane
from autolog.batching import Pace
from autolog.delivery import Delivery
from autolog.exporters import Exporter, Retryable, RunRefused
from autolog.feed import Feed, read_meta
from autolog.journal.progress import Progress
from autolog.receipt import Sending, ShipperState
from autolog.retry import Backoff
from autolog.shipper.source import Source
from autolog.shipper.uploads import Uploads

_BACKLOG, _SMALLEST_SHARE = 10_000, 250
"""Values that all journals together, and each of them, may have waiting in memory."""
_BACKLOG_BATCHES = 10
"""The same in full batches of the exporter, where that is more."""
_REST = 30.0
"""Seconds that a journal is left alone after an error which is neither the server's nor ours."""


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
        self.sources: dict[Path, Source] = {}
        self._exporter, self._pace, self._clock = exporter, pace, clock
        self._backlog = max(_BACKLOG, _BACKLOG_BATCHES * exporter.limits.metrics)
        self._uploads = None if lane is None else self._uploads_by(lane)
        self._stored = 0

    def _uploads_by(self, lane: Lane) -> Uploads:
        return Uploads(lane, refuse_token=self._exporter.refuse_token, failed=self._put_last)

    def add(self, folder: Path, *, finish: bool = False, target: str = "") -> bool:
        """Take on a journal; False when its description cannot be read.

        `finish` and `target` are those of `Feed`.
        """
        meta = read_meta(folder)
        if meta is None:
            return False
        if folder not in self.sources:
            feed = Feed(folder, meta, finish, target)
            self.sources[folder] = Source(feed, feed.tail)
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
            source.sync_disk()

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
        with_files = self._uploads is not None
        return all(source.has_arrived(with_files=with_files) for source in self.sources.values())

    @property
    def state(self) -> ShipperState:
        """What others may know of this shipper."""
        down = self.backoff.down
        silent = down and self._is_silent
        sending = Sending() if self._uploads is None else self._uploads.sending
        return ShipperState(os.getpid(), down, silent, self.problem, self._stored, sending)

    @property
    def progress(self) -> list[Progress]:
        """How far each journal has come."""
        return [source.feed.progress for source in self.sources.values()]

    @property
    def is_uploading(self) -> bool:
        """Whether a file is on its way."""
        return self._uploads is not None and self._uploads.is_busy

    @property
    def has_living(self) -> bool:
        """Whether some owner is alive, however much of its journal is still to be read."""
        return any(source.is_owned for source in self.sources.values())

    def _attend(self, source: Source) -> bool:
        if source.is_discarded:
            return False
        readers = sum(not other.is_discarded for other in self.sources.values())
        share = max(_SMALLEST_SHARE, self._backlog // readers)
        moved = source.read(self._clock(), share)
        if self.backoff.wait(self._clock()) == 0:
            moved |= self._send(source)
        source.discard_when_done()
        return moved

    def _send(self, source: Source) -> bool:
        if source.delivery is None:
            if not source.entries or not self._is_due(source):
                return False
            source.delivery = Delivery(source.feed, source.entries, self._exporter)
            source.entries, source.values = [], 0
        before = source.feed.progress.acknowledged
        try:
            source.delivery.advance()
        except Retryable as problem:
            self.is_unauthorized = problem.is_unauthorized
            self._is_silent = problem.status is None
            self.backoff.failed(problem.after, self._clock())
            self._put_last(source, problem.reason)
            return False
        except RunRefused as refusal:
            self.problem, source.rests_until = refusal.reason, math.inf
            return True
        finally:
            stored = source.feed.progress.acknowledged - before
            self._stored += stored
        if stored or source.delivery.is_done:
            self.problem, self.is_unauthorized = "", False
            self.backoff.succeeded()
        if source.delivery.is_done:
            source.feed.commit(source.delivery.position)
            source.delivery = None
        return True

    def _put_last(self, source: Source, problem: str) -> None:
        """Let the others go first next time, in case the trouble is this one's alone."""
        self.problem = problem
        self.sources[source.feed.folder] = self.sources.pop(source.feed.folder)

    def _is_due(self, source: Source) -> bool:
        age = self._clock() - source.since
        return self._pace.due(source.values, age, flush=source.is_hurried)

    def _upload(self) -> bool:
        """Start or finish the upload of one file, behind all metrics that are due."""
        if self._uploads is None:
            return False
        now = self._clock()
        may_start = self.backoff.wait(now) == 0
        return self._uploads.step(self.sources.values(), now, may_start=may_start)
