"""Copies of journals in a place that outlives the machine: the outputs of an Azure ML job."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from autolog import guard
from autolog.journal import layout, progress
from autolog.journal.progress import Progress
from autolog.journal.writer import Journal

PATIENCE = 30.0
"""Seconds that something may wait for the service before it is copied, and between two copies."""


@dataclass(slots=True)
class _Wait:
    """How long a journal has waited for the service."""

    cursor: int = -1
    since: float = 0.0
    """When the cursor moved, nothing was behind it, or a copy was made."""
    files: dict[str, float] = field(default_factory=dict)
    """When each file that waits was first seen; never, once a copy has it."""

    def seconds(self, state: Progress, tail: int, now: float) -> float:
        """How long the values have stood still, or a file has waited, whichever is longer."""
        if state.cursor != self.cursor or state.cursor >= tail:
            self.cursor, self.since = state.cursor, now
        self.files = {file: self.files.get(file, now) for _, file, *_ in state.uploads}
        return now - min([self.since, *self.files.values()])

    def end(self, now: float) -> None:
        """A copy has all of it."""
        self.since, self.files = now, dict.fromkeys(self.files, math.inf)


class Mirror:
    """Keeps a copy of each journal that the service does not take: ``autolog sync`` sends it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waits: dict[Journal, _Wait] = {}

    def look(self, journal: Journal, now: float) -> None:
        """Copy a journal that has waited for too long."""
        wait = self._waits.setdefault(journal, _Wait())
        if wait.seconds(progress.load(journal.folder), journal.tail, now) >= PATIENCE:
            wait.end(now)
            self._copy(journal)

    def leave(self, journal: Journal) -> None:
        """The process ends: keep a copy of what is left of a journal, or none."""
        state = progress.load(journal.folder)
        if state.cursor < journal.tail or state.uploads:
            self._copy(journal)
        else:
            shutil.rmtree(self._folder / journal.folder.name, ignore_errors=True)

    def _copy(self, journal: Journal) -> None:
        """Have the copy of a journal be as it is now; where it cannot be written, say so once."""
        try:
            self._replace(journal)
        except OSError as error:
            guard.say_once(
                "mirror",
                f"what the service does not take is on this machine only: no copy in "
                f"{self._folder} ({error}). Training goes on; make that folder writable",
            )

    def _replace(self, journal: Journal) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = journal.folder.name
        partial, place, old = (self._folder / f"{name}{end}" for end in (".partial", "", ".old"))
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        # First what says how far the rest may be read, and how much of it has been sent.
        first = (layout.META, layout.CONTROL, layout.PROGRESS)
        others = sorted(f.name for f in journal.folder.iterdir() if f.name not in first)
        for each in (*first, *others):
            source = journal.folder / each
            if source.is_dir():
                shutil.copytree(source, partial / each, symlinks=True)
            elif source.is_file():
                shutil.copy2(source, partial / each)
        if place.exists():
            place.rename(old)
        partial.rename(place)
        shutil.rmtree(old, ignore_errors=True)
