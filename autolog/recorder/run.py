"""`Run`: the verbs of one open run, turned into frames of its journal."""

from __future__ import annotations

import itertools
import operator
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from autolog import guard, records, targets, values
from autolog.journal import layout, progress
from autolog.journal.writer import Journal
from autolog.recorder.files import Files
from autolog.recorder.keys import KeyTable, KeyTuple
from autolog.recorder.params import KnownParams
from autolog.recorder.problems import Problems, good_numbers, good_texts
from autolog.records import (
    Artifact,
    Inputs,
    Link,
    Metrics,
    Params,
    RunEnd,
    RunStart,
    Status,
    Tags,
)

_FRAME = layout.HEADER.pack
_PLAIN = frozenset((float, int, bool))
_MOST_KEY_TUPLES = 1024
_PARAMS_A_RECORD = 100


class Point(NamedTuple):
    """One value as a client of MLflow's gives it."""

    key: str
    value: float
    timestamp: int
    step: int
    link: Link | None


_moment = operator.attrgetter("timestamp", "step")


class FormerRun(NamedTuple):
    """What there is to know of a run to go on with it, in this process or in another one."""

    key: str
    name: str
    parent_key: str | None
    params: dict[str, str]
    """As logged first, so that a change is told from the same value again."""


class Run:
    """One run.

    Every verb is safe from any thread, and makes no I/O call but for those of `files`.
    Nothing here raises, save for bad values under ``strict``.
    """

    def __init__(self, journal: Journal, target: targets.Target, start: RunStart) -> None:
        self.journal, self.target, self.start = journal, target, start
        self.number, self.key = start.run, start.key
        self.status: str | None = None
        self.is_joined = False
        """Whether another process, the parent of this one, opened it."""
        self.user_keys: set[str] = set()
        """Metric names that other code logs here; hooks leave them alone."""
        self.subject: Callable[[], object | None] | None = None
        """The object whose training used this run first, weakly."""
        self.next_epoch = 0
        """The epoch behind the last one that a training has logged here."""
        self.last_step = 0
        """The optimizer step that trainings have come to here."""
        self.on_names: Callable[[Collection[str]], None] | None = None
        """Told the names of metrics, at least when they are logged together for the first time."""
        self._lock = journal.lock
        self._keys = KeyTable(journal, self.key)
        self._users: dict[tuple[str, ...], KeyTuple] = {}
        """What the user's own code has logged, for the shortest way."""
        self._params = KnownParams(journal.lock)
        self._by_hooks: dict[str, tuple[int, float]] = {}
        """Names that hooks log here, with their newest step and value."""
        self._auto_steps: dict[str, int] = {}
        self._newest = start.timestamp
        self._written = 0
        self._run_id = start.run_id
        self.files = Files(self)
        """The verbs that write files."""
        journal.declare(self.key, layout.frame(records.encode(start)))

    @property
    def title(self) -> str:
        """What to call it before a user; the server gives a name to one without."""
        return f"run {self.start.name}" if self.start.name else "a run"

    def as_former(self) -> FormerRun:
        """What it takes to go on with this run after its end."""
        params = self._params.as_dict()
        return FormerRun(self.key, self.start.name, self.start.parent_key, params)

    # -- metrics -------------------------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log values of one step; without a step each name gets its own next integer."""
        try:
            known = self._users[tuple(metrics)]
            numbers: Collection[Any] = metrics.values()
            if not _PLAIN.issuperset(map(type, numbers)):
                numbers = [values.number(key, value) for key, value in metrics.items()]
            now = time.time_ns() // 1_000_000
            now = max(now, self._newest)
            self._newest = now
            body = known.pack(records.METRICS, self.number, known.number, now, step, *numbers)
            known.last_step = step
        except Exception:  # noqa: BLE001 - a value's __float__ may raise anything
            self._log_checked(metrics, step, by_user=True)
            return
        self.journal.append(_FRAME(len(body), zlib.crc32(body)) + body, known.size)

    def log_hook_metrics(
        self, metrics: Mapping[str, Any], step: int, *, essential: bool = True
    ) -> None:
        """Log what a framework reports, except for the names that other code logs here."""
        renamed = {values.fitting_name(str(key)): value for key, value in metrics.items()}
        taken = self.user_keys.intersection(renamed)
        if taken:
            guard.say_once(
                f"yours:{self.key}",
                f"{', '.join(sorted(taken))}: logged by other code in this run, and left to it",
            )
        for key in taken:
            del renamed[key]
        if renamed:
            self._log_checked(renamed, step, by_user=False, essential=essential)

    def _log_checked(
        self,
        metrics: Mapping[str, Any],
        step: Any,
        *,
        by_user: bool,
        essential: bool = True,
    ) -> None:
        """Log value by value what is good of a step; the rest goes to `Problems`."""
        problems = Problems(self.drop, by_user=by_user)
        good, whole = good_numbers(metrics, step, problems)
        for at, names in self._by_step(good, whole).items():
            keys = tuple(names)
            self._append(keys, tuple(good[key] for key in keys), at, essential)
            if by_user:
                self.user_keys.update(keys)
                known = self._keys.known(keys)
                if known is not None:
                    self._users[keys] = known
            else:
                self._by_hooks.update((key, (at, good[key])) for key in keys)
        problems.settle()

    def _by_step(self, keys: Iterable[str], step: int | None) -> dict[int, list[str]]:
        if step is not None:
            return {step: list(keys)} if keys else {}
        steps: dict[int, list[str]] = {}
        with self._lock:
            for key in keys:
                newest = max(self._auto_steps.get(key, -1), self._keys.last_step(key))
                at = self._auto_steps[key] = newest + 1
                steps.setdefault(at, []).append(key)
        return steps

    def _append(
        self, keys: tuple[str, ...], numbers: tuple[float, ...], step: int, essential: bool
    ) -> None:
        self._newest = max(self._newest, time.time_ns() // 1_000_000)
        self._append_record(Metrics(self.number, keys, numbers, step, self._newest), essential)

    def _append_record(self, record: Metrics, essential: bool = True) -> None:
        known, declaration = self._keys.intern(record.keys, record.links)
        if self.on_names is not None:
            self.on_names(record.keys)
        head = (records.METRICS, self.number, known.number, record.timestamp, record.step)
        known.last_step = record.step
        frame = layout.frame(known.pack(*head, *record.values))
        self._store(declaration + frame, known.size, essential)

    def _store(self, frames: bytes, count: int = 1, essential: bool = True) -> None:
        """Append frames of this run; of one that has ended with its beginning before them."""
        if self.status is not None:
            frames = layout.frame(records.encode(self.start)) + frames
        self.journal.append(frames, count, essential)
        self._written = self.journal.tail

    # -- the other verbs -----------------------------------------------------------------------

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log params as given: text is ``str(value)``; the first value of a key stands."""
        problems = Problems(self.drop, by_user=True)
        fresh = good_texts("param", params, problems)
        for key, (first, later) in self._log_params(fresh).items():
            error = values.changed(key, first, later)
            problems.add("changed param", error, count=0, about=key)
        problems.settle()

    def log_hook_params(self, params: Mapping[str, object]) -> None:
        """Log params that a hook collected: stable text, secrets masked, names made to fit."""
        known = {
            values.fitting_name(key): values.masked(key, values.stable_text(value))
            for key, value in ((values.plain_text(k), v) for k, v in params.items())
        }
        self._log_params(self._params.claim_for_hooks(known))

    def _log_params(self, params: dict[str, str]) -> dict[str, tuple[str, str]]:
        """Log what is new; returns first and later value of what has changed."""
        fresh, changed = self._params.take(params)
        for part in _parts(fresh):
            self._store(layout.frame(records.encode(Params(self.number, part))), len(part))
        if changed:
            self._log_changed({key: later for key, (_, later) in changed.items()})
        return changed

    def _log_changed(self, changed: dict[str, str]) -> None:
        record = Params(self.number, {}, changed)
        self._store(layout.frame(records.encode(record)), 0)
        names = ", ".join(self._params.changed_names)[:500]
        self.set_tags({"autolog.changed_params": names}, by_user=False)

    def set_tags(self, tags: Mapping[str, object], *, by_user: bool = True) -> None:
        """Set tags; the last value of a key stands."""
        problems = Problems(self.drop, by_user=by_user)
        self._append_tags(good_texts("tag", tags, problems))
        problems.settle()

    def _append_tags(self, tags: dict[str, str]) -> None:
        for part in _parts(tags):
            self._store(layout.frame(records.encode(Tags(self.number, part))), len(part))

    # -- what MLflow's clients write, after MLflow's own checks ------------------------------------

    def changed_params(self, params: Mapping[str, str]) -> dict[str, tuple[str, str]]:
        """First and later value of the params that other code logged here with another value."""
        return self._params.changed_by_others(params)

    def know_params(self, params: Mapping[str, str], *, by_hooks: bool = False) -> None:
        """Take note of params that the run has already."""
        self._params.know(params, by_hooks=by_hooks)

    def write_points(self, points: Iterable[Point]) -> None:
        """Log values as they are; those that a hook has logged already, not again."""
        fresh = (p for p in points if self._by_hooks.pop(p.key, None) != (p.step, p.value))
        for (timestamp, step), group in itertools.groupby(
            fresh if self._by_hooks else points, key=_moment
        ):
            keys, numbers, _, _, links = zip(*group, strict=True)
            self.user_keys.update(keys)
            linked = links if any(links) else ()
            self._append_record(Metrics(self.number, keys, numbers, step, timestamp, linked))

    def write_params(self, params: Mapping[str, str]) -> None:
        """Log params as they are; of those that a hook has logged, the hook's value stands."""
        for key, first in self._params.claim_for_others(params).items():
            guard.say_once(
                f"param:{self.key}:{key}",
                f"param {key!r} has the value {first!r} of the training, and keeps it; "
                f"{params[key]!r} is in the tag autolog.changed_params",
            )
        self._log_params(dict(params))

    def write_artifact(self, artifact: Artifact) -> None:
        """Log a file that the journal has."""
        self._store(layout.frame(records.encode(artifact)))

    def write_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags as they are."""
        self._append_tags(dict(tags))

    def write_inputs(self, content: str, *, by_hooks: bool = False) -> None:
        """Log what the run used: see `Inputs`."""
        record = Inputs(self.number, content, by_hooks)
        self._store(layout.frame(records.encode(record)), 0 if by_hooks else 1, not by_hooks)

    def resume(self) -> None:
        """Have the server know that the run goes on, though it has ended before."""
        record = RunEnd(self.number, Status.RUNNING, self._newest)
        self.journal.append(layout.frame(records.encode(record)), 0)

    def set_status(self, status: str, timestamp: int | None = None) -> None:
        """Change the run's status, as often as wanted; `timestamp` is its end, by default now."""
        now = max(self._newest, time.time_ns() // 1_000_000)
        record = RunEnd(self.number, status, now if timestamp is None else timestamp)
        self.journal.append(layout.frame(records.encode(record)), 0)
        self._written = self.journal.tail
        self.status = status
        self.journal.forget(self.key)
        self._keys.close()
        self._users.clear()

    @property
    def run_id(self) -> str | None:
        """The server's id; None until the server has created the run."""
        if self._run_id is None:
            self._run_id = progress.load(self.journal.folder).run_ids.get(self.key)
        return self._run_id

    @property
    def tail(self) -> int:
        """Everything logged so far ends before this position of the journal."""
        return self.journal.tail if self.status is None else self._written

    def end(self, status: str = Status.FINISHED) -> None:
        """End the run, once; an adopted one is only left."""
        with self._lock:
            if self.status is not None:
                return
            self.status = status
        if self.start.owned:
            self.set_status(status)

    def drop(self, reason: str, count: int) -> None:
        """Count values that are not stored."""
        self.journal.drop(reason, count)


def _parts(items: dict[str, str]) -> Iterable[dict[str, str]]:
    """A dict cut into pieces that one record, and one request, can hold."""
    pairs = iter(items.items())
    while part := dict(itertools.islice(pairs, _PARAMS_A_RECORD)):
        yield part
