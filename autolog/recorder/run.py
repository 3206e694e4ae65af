"""`Run`: the verbs of one open run, turned into frames of its journal."""

from __future__ import annotations

import itertools
import os
import shutil
import struct
import threading
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
    """What becomes of a value that cannot be logged: raised with `strict`, else said and counted."""

    def __init__(self, dropped: Callable[[str, int], None]) -> None:
        self._dropped = dropped

    def __call__(self, error: values.BadValue, reason: str, count: int = 1) -> None:
        self._dropped(reason, count)
        if guard.strict:
            raise error
        guard.say_once(f"{reason}:{str(error)[:80]}", f"not logged: {error}")


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
        self._lock = threading.RLock()
        self._known: dict[tuple[str, ...], KeyTuple] = {}
        self._params: dict[str, str] = {}
        self._changed: set[str] = set()
        self._auto_steps: dict[str, int] = {}
        self._newest = start.timestamp
        self._problem = Problems(self._drop)
        journal.declare(self.key, layout.frame(records.encode(start)))

    # -- metrics -------------------------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log values of one step; without a step each name gets its own next integer."""
        try:
            known = self._known[tuple(metrics)]
            now = time.time_ns() // 1_000_000
            if now < self._newest:
                now = self._newest
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
        try:
            whole = None if step is None else values.step(step)
        except values.BadValue as error:
            self._problem(error, "bad step", len(metrics))
            return
        good: dict[str, float] = {}
        for key, value in list(metrics.items()):
            try:
                good[values.name("metric", key)] = values.number(key, value)
            except values.BadValue as error:
                self._problem(error, "bad value")
        if by_user:
            self.user_keys.update(good)
        for at, keys in self._by_step(good, whole).items():
            self._append(tuple(keys), tuple(good[key] for key in keys), at, essential)

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
        """Log params as the user gave them: text is ``str(value)``; the first value of a key stands."""
        self._log_params(params, values.plain_text, lambda key: values.name("param", key))

    def log_hook_params(self, params: Mapping[str, object]) -> None:
        """Log params that a hook collected: stable text, secrets masked, names made to fit."""
        flat = {
            str(key): values.masked(str(key), values.stable_text(v)) for key, v in params.items()
        }
        self._log_params(flat, str, lambda key: values.fitting_name(str(key)))

    def _log_params(
        self,
        params: Mapping[str, object],
        text_of: Callable[[object], str],
        name_of: Callable[[object], str],
    ) -> None:
        fresh: dict[str, str] = {}
        changed: dict[str, str] = {}
        for given, value in list(params.items()):
            try:
                key = name_of(given)
            except values.BadValue as error:
                self._problem(error, "bad name")
                continue
            text = text_of(value)
            with self._lock:
                if key not in self._params:
                    self._params[key] = fresh[key] = text
                elif self._params[key] != text:
                    changed[key] = text
        for part in _parts(fresh):
            self.journal.append(layout.frame(records.encode(Params(self.number, part))), len(part))
        if changed:
            self._log_changed(changed)

    def _log_changed(self, changed: dict[str, str]) -> None:
        self._changed.update(changed)
        record = Params(self.number, {}, changed)
        self.journal.append(layout.frame(records.encode(record)), 0)
        self.set_tags({"autolog.changed_params": ", ".join(sorted(self._changed))[:500]})

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags; the last value of a key stands."""
        good: dict[str, str] = {}
        for key, value in list(tags.items()):
            try:
                good[values.name("tag", key)] = values.plain_text(value)
            except values.BadValue as error:
                self._problem(error, "bad name")
        for part in _parts(good):
            self.journal.append(layout.frame(records.encode(Tags(self.number, part))), len(part))

    def log_artifact(self, local_path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Log a file, or every file of a folder, as it is now: a copy goes to the journal.

        Raises `FileNotFoundError` under ``strict`` when there is none.
        """
        source = Path(local_path)
        if not source.exists():
            self._problem(
                values.BadValue(f"artifact {str(source)!r}: no such file; pass an existing path"),
                "bad value",
            )
            return
        prefix = f"{folder.strip('/')}/" if folder else ""
        if source.is_dir():
            for file in sorted(path for path in source.rglob("*") if path.is_file()):
                self._spool(file, f"{prefix}{file.relative_to(source).as_posix()}")
        else:
            self._spool(source, f"{prefix}{source.name}")

    def log_text(self, text: str, path: str) -> None:
        """Log a small text as an artifact."""
        spooled = self._spool_path(path)
        fd = os.open(spooled, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        self._append_artifact(spooled, path)

    def _spool(self, source: Path, path: str) -> None:
        spooled = self._spool_path(path)
        try:
            shutil.copyfile(source, spooled)
            spooled.chmod(0o600)
        except OSError as error:
            spooled.unlink(missing_ok=True)
            self._drop("artifact not copied", 1)
            guard.say(f"artifact {str(source)!r} not logged: {error}")
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
        self.journal.logged += count
        self.journal.dropped[reason] += count


def _parts(items: dict[str, str]) -> Iterable[dict[str, str]]:
    """A dict cut into pieces that one record, and one request, can hold."""
    pairs = iter(items.items())
    while part := dict(itertools.islice(pairs, _PARAMS_A_RECORD)):
        yield part
