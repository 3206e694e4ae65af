"""`Delivery`: some records of one journal on their way to the server, step by step.

A step that could not be done now stays the next one, so nothing is sent twice that was acknowledged
in this process, and the cursor moves when every step is done.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from functools import partial
from typing import Protocol

from autolog import held, params_file
from autolog.batching import Batch, batches
from autolog.exporters import Exporter, Rejected, Retryable, RunRefused
from autolog.feed import Data, Entry, Feed
from autolog.journal import layout
from autolog.records import Artifact, Metrics, Params, Record, RunEnd, RunStart, Tags

_SUSPECT_TRIES = 3


class Step(Protocol):
    """One thing to do; it returns the steps that come in its place, before all later ones."""

    def __call__(self) -> list[Step]: ...


class Delivery:
    """The steps that bring entries of a feed to the server."""

    def __init__(self, feed: Feed, entries: list[Entry], exporter: Exporter) -> None:
        self.position = max(entry.position for entry in entries)
        self._feed, self._exporter = feed, exporter
        self._suspicions = 0
        self._records: dict[int, list[Record]] = {}
        for entry in entries:
            self._records.setdefault(entry.record.run, []).append(entry.record)
        self._acknowledged: Counter[int] = Counter()
        self._steps: deque[Step] = deque(partial(self._open, run) for run in self._records)
        self._steps.extend(partial(self._expand, run) for run in self._records)

    def advance(self) -> None:
        """Do every step.

        Raises `Retryable` when the next step cannot be done now; call again later.
        """
        while self._steps:
            step = self._steps[0]
            try:
                following = step()
            except Retryable as problem:
                following = self._blame_content(step, problem)
            self._suspicions = 0
            self._steps.popleft()
            self._steps.extendleft(reversed(following))

    # -- steps -----------------------------------------------------------------------------------

    def _open(self, run: int) -> list[Step]:
        start, run_ids = self._feed.start_of(run), self._feed.progress.run_ids
        if start.key in run_ids or start.key in self._feed.held:
            return []
        try:
            run_ids[start.key] = self._exporter.open_run(start, run_ids.get(start.parent_key or ""))
            self._feed.store()
        except (RunRefused, Rejected) as refusal:
            self._set_aside(run, refusal.reason)
        return []

    def _expand(self, run: int) -> list[Step]:
        start = self._feed.start_of(run)
        if start.key in self._feed.held:
            self._set_aside(run, "run set aside before")
            return []
        data: list[Data] = []
        ends: list[Step] = []
        for record in self._records[run]:
            if isinstance(record, Metrics):
                data.append(record)
            elif isinstance(record, Params):
                data.append(self._fitted(start, record))
            elif isinstance(record, Tags):
                data.append(params_file.fit_tags(record, self._exporter.limits))
            elif isinstance(record, Artifact):
                self._feed.queue_upload(start.key, record.file, record.path)
            elif isinstance(record, RunEnd):
                ends.append(partial(self._end, start, record))
        run_id = self._feed.progress.run_ids[start.key]
        sends = batches(run_id, data, self._exporter.limits)
        return [*(partial(self._send, run, batch) for batch in sends), *ends]

    def _send(self, run: int, batch: Batch) -> list[Step]:
        if self._feed.start_of(run).key in self._feed.held:
            return []
        try:
            self._exporter.export(batch)
        except Rejected as refusal:
            return self._narrow(run, batch, refusal.reason)
        except RunRefused as refusal:
            self._set_aside(run, refusal.reason)
            return []
        self._acknowledged[run] += len(batch)
        self._feed.progress.acknowledged += len(batch)
        return []

    def _end(self, start: RunStart, end: RunEnd) -> list[Step]:
        progress = self._feed.progress
        if not start.owned or start.key in progress.ended or start.key in self._feed.held:
            return []
        try:
            self._exporter.end_run(progress.run_ids[start.key], end.status, end.timestamp)
        except (Rejected, RunRefused) as refusal:
            self._feed.reject(refusal.reason, 1)
        progress.ended.append(start.key)
        return []

    # -- what a server refuses -------------------------------------------------------------------

    def _narrow(self, run: int, batch: Batch, reason: str) -> list[Step]:
        """The halves instead, until what the server refuses stands alone: a dead letter."""
        if len(batch) > 1:
            return [partial(self._send, run, half) for half in batch.halves()]
        self._feed.reject(reason, 1)
        self._feed.write_dead_letter(
            {
                "run_id": batch.run_id,
                "metrics": [metric._asdict() for metric in batch.metrics],
                "params": dict(batch.params),
                "tags": dict(batch.tags),
                "reason": reason,
            }
        )
        return []

    def _blame_content(self, step: Step, problem: Retryable) -> list[Step]:
        """Take a server error for a refusal once it stays; before that raise it again."""
        if problem.suspect and isinstance(step, partial) and step.func == self._send:
            self._suspicions += 1
            if self._suspicions >= _SUSPECT_TRIES:
                run, batch = step.args
                return self._narrow(run, batch, problem.reason)
        raise problem

    def _set_aside(self, run: int, reason: str) -> None:
        start, content = self._feed.start_of(run), self._records[run]
        held.set_aside(self._feed.folder, start, content)
        self._feed.held.add(start.key)
        self._feed.reject(reason, values_in(content) - self._acknowledged[run])

    def _fitted(self, start: RunStart, record: Params) -> Params:
        fitted, whole = params_file.fit_params(record, self._exporter.limits)
        if whole:
            file = params_file.add(self._feed.folder / layout.FILES, start.key, whole)
            self._feed.queue_upload(start.key, file, params_file.NAME)
        return fitted


def values_in(records: Iterable[Record]) -> int:
    """How many values records hold."""
    count = 0
    for record in records:
        if isinstance(record, Metrics):
            count += len(record.keys)
        elif isinstance(record, Params):
            count += len(record.params)
        elif isinstance(record, Tags):
            count += len(record.tags)
        elif isinstance(record, Artifact):
            count += 1
    return count
