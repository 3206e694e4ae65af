"""`Uploads`: the files of the journals, which go one at a time and behind all metrics."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from autolog import params_file
from autolog.artifacts import Lane, Outcome, Upload
from autolog.receipt import Sending
from autolog.records import Kind, model_folder
from autolog.retry import Backoff
from autolog.shipper.source import Source

_LOOK = 1.0
"""Seconds between two looks at how far the file on its way has come."""


class Uploads:
    """Hands files to the slow lane, and strikes them off the lists of their journals."""

    def __init__(
        self,
        lane: Lane,
        *,
        refuse_token: Callable[[], None],
        failed: Callable[[Source, str], None],
    ) -> None:
        """`refuse_token` hears of a token refused, `failed` of a journal whose file has to wait."""
        self.sending = Sending()
        """The file on its way."""
        self._lane, self._refuse_token, self._failed = lane, refuse_token, failed
        self._backoff = Backoff(random.Random())  # noqa: S311 - no secret hangs on it
        """Files wait for values, as values do not for files."""
        self._current: tuple[Source, list[str]] | None = None
        self._looked = -math.inf

    @property
    def is_busy(self) -> bool:
        """Whether a file is on its way."""
        return self._lane.busy

    def step(self, sources: Iterable[Source], now: float, *, may_start: bool) -> bool:
        """Start or finish the upload of one file; True when something moved."""
        outcome = self._lane.outcome()
        if outcome is not None:
            self._uploaded(outcome, now)
            self.sending = Sending()
            return True
        if not self._lane.busy:
            return may_start and self._backoff.wait(now) == 0 and self._start(sources)
        if now - self._looked >= _LOOK:
            self._looked = now
            self.sending = replace(self.sending, sent=self._lane.sent)
        return False

    def _start(self, sources: Iterable[Source]) -> bool:
        for source in sources:
            if source.delivery is not None or source.is_given_up:
                continue
            for entry in _ready(source.feed.progress.uploads):
                self._submit(source, entry)
                return True
        return False

    def _submit(self, source: Source, entry: list[str]) -> None:
        run_key, file, path, kind = entry
        run_id = source.feed.progress.run_ids.get(run_key)
        spooled = source.feed.spooled(file)
        if run_id is None or spooled is None:
            _settle(source, entry, "no regular file in the journal")
        else:
            self._current = source, entry
            self.sending = Sending(path, source.feed.size(file))
            self._lane.submit(Upload(run_id, str(spooled), path, kind))

    def _uploaded(self, outcome: Outcome, now: float) -> None:
        assert self._current is not None
        source, entry = self._current
        if outcome.problem and not outcome.is_final:
            if outcome.is_unauthorized:
                self._refuse_token()
            self._backoff.failed(outcome.after, now)
            source.feed.progress.uploads.remove(entry)
            source.feed.progress.uploads.append(entry)
            self._failed(source, outcome.problem)
            return
        self._backoff.succeeded()
        _settle(source, entry, outcome.problem)


def _ready(uploads: list[list[str]]) -> Iterator[list[str]]:
    """Files to be uploaded, without versions of models that are still to come themselves."""
    coming = {run_key for run_key, _, _, kind in uploads if kind == Kind.MODEL}
    return (u for u in uploads if not (u[3] == Kind.REGISTRATION and u[0] in coming))


def _settle(source: Source, entry: list[str], refusal: str) -> None:
    """The server has a file, or never will: let go of it."""
    run_key, file, _, kind = entry
    is_ours = file == params_file.spooled_name(run_key)
    source.feed.settle_upload(entry, refusal, is_params_file=is_ours)
    spooled = source.feed.spooled(file)
    if spooled is not None and not is_ours:
        spooled.unlink()
        if kind == Kind.MODEL:
            shutil.rmtree(model_folder(str(spooled)), ignore_errors=True)
