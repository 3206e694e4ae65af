"""`Run`: the verbs of one open run, turned into frames of its journal."""

from __future__ import annotations

import itertools
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from autolog import guard, records, settings, values
from autolog.journal import layout
from autolog.journal.writer import Journal
from autolog.records import Artifact, Params, RunEnd, RunStart, Status, Tags

_FRAME = layout.HEADER.pack
_MOST_KEY_TUPLES = 1024
_PARAMS_A_RECORD = 100


class Problems:
    """What of one call cannot be logged; it speaks up when all that can be is logged.

    Counted, and said once for each reason and name; raised with `strict` where the user's own code
    made the call.
    """

    def __init__(self, drop: Callable[[str, int], None], *, by_user: bool) -> None:
        self._drop, self._may_raise = drop, by_user and guard.strict
        self._found: list[tuple[str, values.BadValue]] = []

    def add(self, reason: str, error: values.BadValue, *, count: int = 1, about: str = "") -> None:
        """Note one problem that costs so many values."""
        self._drop(reason, count)
        self._found.append((f"{reason}:{about}", error))

    def settle(self) -> None:
        """Raise the first problem, or say each."""
        for key, error in self._found:
            if self._may_raise:
                raise error
            guard.say_once(key, f"not logged: {error}")


class KeyTuple:
    """The names of one kind of step, interned once in a journal."""

    __slots__ = ("last_step", "number", "pack", "size")

    def __init__(self, number: int, keys: tuple[str, ...]) -> None:
        self.number, self.size = number, len(keys)
        self.pack = records.metrics_packer(len(keys))
        self.last_step: Any = -1


class Run:
    """One open run.

    Every verb is safe from any thread and makes no I/O call, `log_artifact` excepted, which copies
    the file. Nothing here raises, save for bad values under ``strict``.
    """

    def __init__(self, journal: Journal, target: settings.Target, start: RunStart) -> None:
        self.journal, self.target, self.start = journal, target, start
        self.number, self.key = start.run, start.key
        self.status: str | None = None
        self.user_keys: set[str] = set()
        """Metric names that the user's own code logs here; hooks leave them alone."""
        self.subject: Callable[[], object | None] | None = None
        """The object whose training used this run first, weakly."""
        self.next_epoch = 0
        self._lock = journal.lock
        self._known: dict[tuple[str, ...], KeyTuple] = {}
        self._users: dict[tuple[str, ...], KeyTuple] = {}
        """Those of the known ones that the user's own code has logged."""
        self._params: dict[str, str] = {}
        self._changed: set[str] = set()
        self._auto_steps: dict[str, int] = {}
        self._newest = start.timestamp
        journal.declare(self.key, layout.frame(records.encode(start)))

    # -- metrics -------------------------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log values of one step; without a step each name gets its own next integer."""
        try:
            known = self._users[tuple(metrics)]
            now = time.time_ns() // 1_000_000
            now = max(now, self._newest)
            self._newest = now
            body = known.pack(
                records.METRICS, self.number, known.number, now, step, *metrics.values()
            )
            known.last_step = step
        except Exception:  # noqa: BLE001 - a value's __float__ may raise anything
            self._log_checked(metrics, step, by_user=True)
            return
        self.journal.append(_FRAME(len(body), zlib.crc32(body)) + body, known.size)

    def log_hook_metrics(
        self, metrics: Mapping[str, Any], step: int, *, essential: bool = True
    ) -> None:
        """Log what a framework reports, except for the names that the user's code logs here."""
        renamed = {values.fitting_name(str(key)): value for key, value in metrics.items()}
        taken = self.user_keys.intersection(renamed)
        for key in taken:
            guard.say_once(
                f"yours:{self.key}:{key}",
                f"{key!r} is logged by your own code in this run; autolog leaves that name to it",
            )
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
        problems = Problems(self._drop, by_user=by_user)
        good, whole = self._good_numbers(metrics, step, problems)
        for at, names in self._by_step(good, whole).items():
            keys = tuple(names)
            self._append(keys, tuple(good[key] for key in keys), at, essential)
            if by_user:
                self.user_keys.update(keys)
                with self._lock:
                    if keys in self._known:
                        self._users[keys] = self._known[keys]
        problems.settle()

    def _good_numbers(
        self, metrics: Mapping[str, Any], step: object, problems: Problems
    ) -> tuple[dict[str, float], int | None]:
        """The values and the step that can be logged; no values where the step is bad."""
        good: dict[str, float] = {}
        try:
            given = values.pairs("metric", metrics)
        except values.BadValue as error:
            problems.add("bad value", error)
            return good, None
        try:
            whole = None if step is None else values.step(step)
        except values.BadValue as error:
            problems.add("bad step", error, count=len(given))
            return good, None
        for key, value in given:
            try:
                name = values.name("metric", key)
            except values.BadValue as error:
                problems.add("bad name", error)
                continue
            try:
                good[name] = values.number(name, value)
            except values.BadValue as error:
                problems.add("bad value", error, about=name)
        return good, whole

    def _by_step(self, keys: Iterable[str], step: int | None) -> dict[int, list[str]]:
        if step is not None:
            return {step: list(keys)} if keys else {}
        steps: dict[int, list[str]] = {}
        with self._lock:
            for key in keys:
                logged = [known.last_step for names, known in self._known.items() if key in names]
                at = self._auto_steps[key] = max(self._auto_steps.get(key, -1), *logged, -1) + 1
                steps.setdefault(at, []).append(key)
        return steps

    def _append(
        self, keys: tuple[str, ...], numbers: tuple[float, ...], step: int, essential: bool
    ) -> None:
        known, declaration = self._intern(keys)
        self._newest = max(self._newest, time.time_ns() // 1_000_000)
        body = known.pack(records.METRICS, self.number, known.number, self._newest, step, *numbers)
        known.last_step = step
        self.journal.append(declaration + layout.frame(body), len(keys), essential)

    def _intern(self, keys: tuple[str, ...]) -> tuple[KeyTuple, bytes]:
        """The number of a tuple of names, and what must stand before each use of it.

        Past `_MOST_KEY_TUPLES` a tuple is declared anew with each use, so that neither memory nor
        the start of a segment grows without end.
        """
        with self._lock:
            known = self._known.get(keys)
            if known is not None:
                return known, b""
            known = KeyTuple(next(self.journal.ids), keys)
            declaration = layout.frame(records.encode_keys(known.number, keys))
            if len(self._known) >= _MOST_KEY_TUPLES:
                return known, declaration
            self.journal.declare((self.key, keys), declaration)
            self._known[keys] = known
            return known, b""

    # -- the other verbs -----------------------------------------------------------------------

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log params as given: text is ``str(value)``; the first value of a key stands."""
        problems = Problems(self._drop, by_user=True)
        fresh = self._good_texts("param", params, problems)
        for key, (first, later) in self._log_params(fresh).items():
            error = values.changed(key, first, later)
            problems.add("changed param", error, count=0, about=key)
        problems.settle()

    def log_hook_params(self, params: Mapping[str, object]) -> None:
        """Log params that a hook collected: stable text, secrets masked, names made to fit."""
        self._log_params(
            {
                values.fitting_name(key): values.masked(key, values.stable_text(value))
                for key, value in ((values.plain_text(k), v) for k, v in params.items())
            }
        )

    def _good_texts(
        self, kind: str, items: Mapping[str, object], problems: Problems
    ) -> dict[str, str]:
        """What of a mapping has a name that can be logged, as text."""
        good: dict[str, str] = {}
        try:
            given = values.pairs(kind, items)
        except values.BadValue as error:
            problems.add("bad value", error)
            return good
        for key, value in given:
            try:
                good[values.name(kind, key)] = values.plain_text(value)
            except values.BadValue as error:
                problems.add("bad name", error)
        return good

    def _log_params(self, params: dict[str, str]) -> dict[str, tuple[str, str]]:
        """Log what is new; returns first and later value of what has changed."""
        fresh: dict[str, str] = {}
        changed: dict[str, tuple[str, str]] = {}
        with self._lock:
            for key, text in params.items():
                if key not in self._params:
                    self._params[key] = fresh[key] = text
                elif self._params[key] != text:
                    changed[key] = self._params[key], text
        for part in _parts(fresh):
            self.journal.append(layout.frame(records.encode(Params(self.number, part))), len(part))
        if changed:
            self._log_changed({key: later for key, (_, later) in changed.items()})
        return changed

    def _log_changed(self, changed: dict[str, str]) -> None:
        self._changed.update(changed)
        record = Params(self.number, {}, changed)
        self.journal.append(layout.frame(records.encode(record)), 0)
        self.set_tags(
            {"autolog.changed_params": ", ".join(sorted(self._changed))[:500]}, by_user=False
        )

    def set_tags(self, tags: Mapping[str, object], *, by_user: bool = True) -> None:
        """Set tags; the last value of a key stands."""
        problems = Problems(self._drop, by_user=by_user)
        for part in _parts(self._good_texts("tag", tags, problems)):
            self.journal.append(layout.frame(records.encode(Tags(self.number, part))), len(part))
        problems.settle()

    def log_artifact(self, local_path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Log a file, or every file of a folder, as it is now: a copy goes to the journal.

        Raises `BadValue` under ``strict`` when there is none.
        """
        try:
            source, prefix = values.source(local_path), values.folder(folder)
        except values.BadValue as error:
            problems = Problems(self._drop, by_user=True)
            problems.add("bad artifact", error, about=values.plain_text(local_path))
            problems.settle()
            return
        if source.is_dir():
            for file in sorted(path for path in source.rglob("*") if path.is_file()):
                self._spool(file, f"{prefix}{file.relative_to(source).as_posix()}")
        else:
            self._spool(source, f"{prefix}{source.name}")

    def log_text(self, text: str, path: str) -> None:
        """Log a small text as an artifact."""
        self.log_bytes(text.encode("utf-8", "backslashreplace"), path)

    def log_bytes(self, content: bytes, path: str) -> None:
        """Log the content of a small file as an artifact."""
        spooled = self._spool_path(path)
        fd = os.open(spooled, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "wb") as file:
            file.write(content)
        self._append_artifact(spooled, path)

    def _spool(self, source: Path, path: str) -> None:
        try:
            spooled = self._spool_path(path)
            try:
                shutil.copyfile(source, spooled)
                spooled.chmod(0o600)
            except OSError:
                spooled.unlink(missing_ok=True)
                raise
        except OSError as error:
            self._drop("artifact not copied", 1)
            guard.say_once("artifact not copied", f"artifact {str(source)!r} not logged: {error}")
            return
        self._append_artifact(spooled, path)

    def _spool_path(self, path: str) -> Path:
        folder = self.journal.folder / layout.FILES / f"{next(self.journal.ids):06d}"
        folder.mkdir(mode=0o700)
        return folder / path.rpartition("/")[2]

    def _append_artifact(self, spooled: Path, path: str) -> None:
        file = f"{spooled.parent.name}/{spooled.name}"
        self.journal.append(layout.frame(records.encode(Artifact(self.number, file, path))))

    def end(self, status: str = Status.FINISHED) -> None:
        """End the run, once; an adopted one is only left."""
        with self._lock:
            if self.status is not None:
                return
            self.status = status
        now = max(self._newest, time.time_ns() // 1_000_000)
        self.journal.append(layout.frame(records.encode(RunEnd(self.number, status, now))), 0)
        self.journal.forget(self.key)
        for keys in self._known:
            self.journal.forget((self.key, keys))

    def _drop(self, reason: str, count: int) -> None:
        self.journal.drop(reason, count)


def _parts(items: dict[str, str]) -> Iterable[dict[str, str]]:
    """A dict cut into pieces that one record, and one request, can hold."""
    pairs = iter(items.items())
    while part := dict(itertools.islice(pairs, _PARAMS_A_RECORD)):
        yield part
