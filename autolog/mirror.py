"""Copies of journals in a place that outlives the machine: the outputs of an Azure ML job."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from autolog import guard
from autolog.journal import files, layout, progress
from autolog.journal.owner import is_locked
from autolog.journal.progress import Progress
from autolog.journal.reader import Reader

PATIENCE = 30.0
"""Seconds that something may wait for the service before it is copied, and between two copies."""


@dataclass(slots=True)
class _Wait:
    """How long a journal has waited for the service."""

    goal: int = 0
    """What had been logged at `since`; taken when the service has all that came before."""
    since: float = 0.0
    files: dict[str, float] = field(default_factory=dict)
    """When each file that waits was first seen; never, once a copy has it."""

    def seconds(self, state: Progress, tail: int, now: float) -> float:
        """How long values or a file have waited, whichever is longer."""
        if state.cursor >= self.goal:
            self.goal, self.since = tail, now
        self.files = {file: self.files.get(file, now) for _, file, *_ in state.uploads}
        return now - min([self.since, *self.files.values()])

    def end(self, now: float) -> None:
        """A copy has all of it."""
        self.since, self.files = now, dict.fromkeys(self.files, math.inf)


class Mirror:
    """Keeps a copy of each journal that the service does not take: ``autolog sync`` sends it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waits: dict[Path, _Wait] = {}
        self._done: set[Path] = set()
        """Journals of which nothing waits, and never will."""

    def look(self, journal: Path, now: float) -> None:
        """Copy a journal that has waited for too long."""
        state = progress.load(journal)
        wait = self._waits.setdefault(journal, _Wait())
        if wait.seconds(state, _tail(journal), now) >= PATIENCE:
            wait.end(now)
            self._copy(journal)

    def look_at_ended(self, group: Path, now: float) -> None:
        """The same for journals of processes that have ended, as children do."""
        for journal in self._ended(group):
            if _is_waiting(journal):
                self.look(journal, now)
            else:
                self.leave(journal)
                self._done.add(journal)

    def leave(self, journal: Path) -> None:
        """The process ends: keep a copy of what is left of a journal, or none."""
        if _is_waiting(journal):
            self._copy(journal)
        else:
            shutil.rmtree(self._folder / journal.name, ignore_errors=True)

    def leave_ended(self, group: Path) -> None:
        """The same for journals of processes that have ended before."""
        for journal in self._ended(group):
            self.leave(journal)

    def _ended(self, group: Path) -> Iterator[Path]:
        for meta in group.glob(f"*/{layout.META}"):
            journal = meta.parent
            if journal not in self._done and not is_locked(journal / layout.OWNER_LOCK):
                yield journal

    def _copy(self, journal: Path) -> None:
        """Have the copy of a journal be as it is now; where it cannot be written, say so once."""
        try:
            self._replace(journal)
        except OSError as error:
            guard.say_once(
                "mirror",
                f"what the service does not take is on this machine only: no copy in "
                f"{self._folder} ({error}). Training goes on; make that folder writable",
            )

    def _replace(self, journal: Path) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = journal.name
        partial, place, old = (self._folder / f"{name}{end}" for end in (".partial", "", ".old"))
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        # First what says how far the rest may be read, and how much of it has been sent.
        first = (layout.META, layout.CONTROL, layout.PROGRESS)
        others = sorted(f.name for f in journal.iterdir() if f.name not in first)
        for each in (*first, *others):
            _copy_part(journal / each, partial / each)
        if place.exists():
            place.rename(old)
        partial.rename(place)
        shutil.rmtree(old, ignore_errors=True)


def _is_waiting(journal: Path) -> bool:
    state = progress.load(journal)
    return bool(state.uploads) or state.cursor < _tail(journal)


def _tail(journal: Path) -> int:
    return Reader(journal).control().tail or 0


def _copy_part(source: Path, target: Path) -> None:
    """Copy a part of a journal; of segments, which are allocated whole, what is published."""
    number = layout.segment_number(source.name)
    tail = Reader(target.parent).control().tail
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    elif number is None or tail is None or number < layout.split(tail)[0]:
        if source.is_file():
            shutil.copy2(source, target)
    elif number == layout.split(tail)[0]:
        files.replace(target, files.read(source, layout.split(tail)[1]))
