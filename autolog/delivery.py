"""`Delivery`: some records of one journal on their way to the server, step by step.

A step that could not be done now stays the next one, so nothing is sent twice that was acknowledged
in this process, and the cursor moves when every step is done.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial

from autolog import held, params_file
from autolog.batching import Batch, batches
from autolog.exporters import Exporter, Rejected, Retryable, RunRefused, TagsRefused
from autolog.feed import Data, Entry, Feed
from autolog.journal import layout
from autolog.params_file import Whole
from autolog.records import Artifact, Inputs, Metrics, Params, Record, RunEnd, Status, Tags

_TURN = 5.0
"""Seconds after which a step begins no further request."""
_SUSPECT_TRIES = 3
_PROBE = (("autolog.probe", "1"),)
"""A tag that no server chokes on."""
_NOT_SERVED = (404, 405, 501)
"""What servers answer that have values and no inputs of runs: old ones, and other people's."""


Step = Callable[[], "list[Step]"]
"""One thing to do; it returns the steps that come in its place, before all later ones."""


class Delivery:
    """The steps that bring entries of a feed to the server."""

    def __init__(self, feed: Feed, entries: list[Entry], exporter: Exporter) -> None:
        self.position = max(entry.position for entry in entries)
        self._feed, self._exporter = feed, exporter
        self._tries = 0
        self._is_wary = False
        """True when the newest request was in vain: one alone shows whether the server is well."""
        self._records: dict[int, list[Record]] = {}
        for entry in entries:
            self._records.setdefault(entry.record.run, []).append(entry.record)
        self._acknowledged: Counter[int] = Counter()
        self._steps: deque[Step] = deque(partial(self._open, run) for run in self._records)

    @property
    def is_done(self) -> bool:
        """Whether no step is left."""
        return not self._steps

    def advance(self) -> None:
        """Do the next step, which asks the server for a few things at most.

        Raises `Retryable` when it cannot be done now; call again later.
        Raises `RunRefused` when the feed is a run set aside before, and refused again.
        """
        step = self._steps[0]
        try:
            following = step()
        except Retryable as problem:
            self._is_wary = True
            following = self._examine(step, problem)
        else:
            self._is_wary = False
        self._tries = 0
        self._steps.popleft()
        self._steps.extendleft(reversed(following))

    # -- steps -----------------------------------------------------------------------------------

    def _open(self, run: int) -> list[Step]:
        start, run_ids = self._feed.start_of(run), self._feed.progress.run_ids
        if self._is_held(run):
            reasons = self._feed.progress.held.get(start.key, {})
            self._set_aside(run, next(iter(reasons), "run set aside"))
            return []
        if start.key in run_ids:
            return [partial(self._expand, run)]
        short, whole = params_file.fit_tags(Tags(run, start.tags), self._exporter.limits)
        parent_id = run_ids.get(start.parent_key or "")
        late: list[Step] = []
        try:
            opened = self._exporter.open_run(replace(start, tags=short.tags), parent_id)
        except TagsRefused as bare:
            opened = bare.run_id
            tags = Batch(opened, tags=tuple(short.tags.items()))
            late = [partial(self._set_first_tags, run, tags)]
        except (RunRefused, Rejected) as refusal:
            self._set_aside(run, refusal.reason)
            return []
        self._feed.know_run(start.key, opened)
        return [*late, partial(self._queue_whole, run, whole), partial(self._expand, run)]

    def _set_first_tags(self, run: int, tags: Batch) -> list[Step]:
        """Set tags that a run was to begin with, which count as no values of its own.

        One that the server does not take stands in ``params.json`` instead.
        """
        if self._is_held(run):
            return []
        try:
            self._exporter.export(tags)
        except Rejected:
            if len(tags) > 1:
                return [partial(self._set_first_tags, run, half) for half in tags.halves()]
            return [partial(self._queue_whole, run, Whole(tags=dict(tags.tags)))]
        except RunRefused as refusal:
            self._set_aside(run, refusal.reason)
        return []

    def _expand(self, run: int) -> list[Step]:
        start = self._feed.start_of(run)
        limits = self._exporter.limits
        data: list[Data] = []
        files: list[Step] = []
        ends: list[Step] = []
        for record in self._records[run]:
            if isinstance(record, Metrics):
                data.append(record)
            elif isinstance(record, Params):
                fitted, whole = params_file.fit_params(record, limits)
                data.append(fitted)
                files.append(partial(self._queue_whole, run, whole))
            elif isinstance(record, Tags):
                short, whole = params_file.fit_tags(record, limits)
                data.append(short)
                files.append(partial(self._queue_whole, run, whole))
            elif isinstance(record, Artifact):
                files.append(partial(self._queue, run, record))
            elif isinstance(record, Inputs):
                files.append(partial(self._log_inputs, run, record))
            elif isinstance(record, RunEnd):
                ends.append(partial(self._end, run, record))
        sends = list(batches(self._feed.progress.run_ids[start.key], data, limits))
        # What stands twice in here, a tag set again for one, is stored with its other self.
        self._acknowledge(run, values_in(data) - sum(map(len, sends)))
        metrics = [batch for batch in sends if batch.metrics]
        first = [partial(self._send, run, batch) for batch in sends if not batch.metrics]
        return [*first, partial(self._send_together, run, metrics), *files, *ends]

    def _send_together(self, run: int, waiting: list[Batch]) -> list[Step]:
        """Send metrics in several requests at once, whose order is the server's affair.

        Where one of them is refused, what waits then goes one by one.
        """
        if self._is_held(run) or min(self._exporter.limits.requests, len(waiting)) < 2:
            return [partial(self._send, run, batch) for batch in waiting]
        if self._is_wary:
            first, *rest = waiting
            return [partial(self._send, run, first), partial(self._send_together, run, rest)]
        stored, problems = _export_together(self._exporter, waiting)
        for batch in stored:
            waiting.remove(batch)
            self._acknowledge(run, len(batch))
        for problem in problems:
            if not _may_be_of_content(problem):
                raise problem
        if problems:
            return [partial(self._send, run, batch) for batch in waiting]
        return [partial(self._send_together, run, waiting)] if waiting else []

    def _send(self, run: int, batch: Batch) -> list[Step]:
        if self._is_held(run):
            return []
        try:
            self._exporter.export(batch)
        except Rejected as refusal:
            return self._narrow(run, batch, refusal.reason, limit=refusal.limit)
        except RunRefused as refusal:
            self._set_aside(run, refusal.reason)
            return []
        self._acknowledge(run, len(batch))
        return []

    def _acknowledge(self, run: int, values: int) -> None:
        self._acknowledged[run] += values
        self._feed.progress.acknowledged += values

    def _queue(self, run: int, artifact: Artifact) -> list[Step]:
        if not self._is_held(run):
            key = self._feed.start_of(run).key
            self._feed.queue_upload(key, artifact.file, artifact.path, artifact.kind)
        return []

    def _queue_whole(self, run: int, whole: Whole) -> list[Step]:
        if whole and not self._is_held(run):
            key = self._feed.start_of(run).key
            params_file.add(self._feed.folder / layout.FILES, key, whole)
            self._feed.queue_upload(key, params_file.spooled_name(key), params_file.NAME)
        return []

    def _log_inputs(self, run: int, inputs: Inputs) -> list[Step]:
        if self._is_held(run):
            return []
        run_id = self._feed.progress.run_ids[self._feed.start_of(run).key]
        try:
            self._exporter.log_inputs(run_id, inputs.content)
        except Rejected as refusal:
            if not inputs.by_hooks:
                self._feed.progress.reject(refusal.reason, 1)
                self._dead_letter(run_id, refusal.reason, inputs=inputs.content)
        except Retryable as problem:
            if not (inputs.by_hooks and problem.status in _NOT_SERVED):
                raise
        except RunRefused as refusal:
            self._set_aside(run, refusal.reason)
        else:
            self._acknowledge(run, values_in([inputs]))
        return []

    def _end(self, run: int, end: RunEnd) -> list[Step]:
        key, progress = self._feed.start_of(run).key, self._feed.progress
        if self._is_held(run):
            return []
        if end.status != Status.LEFT:
            try:
                end_time = None if end.status == Status.RUNNING else end.timestamp
                self._exporter.end_run(progress.run_ids[key], end.status, end_time)
            except (Rejected, RunRefused) as refusal:
                self._set_ends_aside(run, refusal.reason)
                return []
        is_listed = key in progress.ended
        if end.status == Status.RUNNING and is_listed:
            progress.ended.remove(key)
        elif end.status != Status.RUNNING and not is_listed:
            progress.ended.append(key)
        return []

    # -- what a server refuses -------------------------------------------------------------------

    def _narrow(self, run: int, batch: Batch, reason: str, limit: int | None = None) -> list[Step]:
        """The halves instead, until what the server refuses stands alone: a dead letter.

        A param or tag past the server's `limit` stands in ``params.json`` instead.
        """
        if len(batch) > 1:
            return [partial(self._send, run, half) for half in batch.halves()]
        if not batch.metrics and limit is not None:
            self._acknowledged[run] += 1
            filed, key = self._feed.progress.filed, self._feed.start_of(run).key
            filed[key] = filed.get(key, 0) + 1
            whole = Whole(params=dict(batch.params), tags=dict(batch.tags))
            return [partial(self._queue_whole, run, whole)]
        self._feed.progress.reject(reason, 1)
        self._dead_letter(
            batch.run_id,
            reason,
            metrics=[metric._asdict() for metric in batch.metrics],
            params=dict(batch.params),
            tags=dict(batch.tags),
        )
        return []

    def _dead_letter(self, run_id: str, reason: str, **content: object) -> None:
        self._feed.write_dead_letter({"run_id": run_id, **content, "reason": reason})

    def _examine(self, step: Step, problem: Retryable) -> list[Step]:
        """Take a server error for a refusal where the server is well otherwise, else raise it.

        Halving costs nothing, so one probe is enough; what stands alone gets some more tries.
        """
        if not (problem.suspect and isinstance(step, partial) and step.func == self._send):
            raise problem
        run, batch = step.args
        try:
            self._exporter.export(Batch(batch.run_id, tags=_PROBE))
        except RunRefused as refusal:
            self._set_aside(run, refusal.reason)
            return []
        self._tries += 1
        if len(batch) == 1 and self._tries < _SUSPECT_TRIES:
            raise problem
        return self._narrow(run, batch, problem.reason)

    def _is_held(self, run: int) -> bool:
        return self._feed.start_of(run).key in self._feed.held

    def _set_aside(self, run: int, reason: str) -> None:
        if self._feed.is_held:
            raise RunRefused(reason)
        start, content = self._feed.start_of(run), self._records[run]
        is_left = any(isinstance(each, RunEnd) and each.status == Status.LEFT for each in content)
        if is_left and not any(self._feed.progress.held.get(start.key, {}).values()):
            held.drop(self._feed.folder, start.key)
            return
        held.set_aside(self._feed.folder, start, content)
        self._feed.hold(start.key, reason, values_in(content) - self._acknowledged[run])

    def _set_ends_aside(self, run: int, reason: str) -> None:
        """The same for a run of which all else is dealt with."""
        ends: list[Record] = [each for each in self._records[run] if isinstance(each, RunEnd)]
        self._records[run], self._acknowledged[run] = ends, 0
        self._set_aside(run, reason)


def _export_together(
    exporter: Exporter, batches: Iterable[Batch]
) -> tuple[list[Batch], list[BaseException]]:
    """Begin with as many batches as fit into a turn; those that are stored, and what went wrong."""
    with ThreadPoolExecutor(exporter.limits.requests) as pool:
        sent = {pool.submit(exporter.export, batch): batch for batch in batches}
        for late in wait(sent, _TURN, FIRST_EXCEPTION).not_done:
            late.cancel()
    stored, problems = [], []
    for future, batch in sent.items():
        if future.cancelled():
            continue
        problem = future.exception()
        if problem is None:
            stored.append(batch)
        else:
            problems.append(problem)
    return stored, problems


def _may_be_of_content(problem: BaseException) -> bool:
    """Whether another batch may fare better."""
    if isinstance(problem, Retryable):
        return problem.suspect
    return isinstance(problem, (Rejected, RunRefused))


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
        elif isinstance(record, Inputs):
            count += not record.by_hooks
    return count
