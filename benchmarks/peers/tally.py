"""Numbers in a file that the process of a contender and the one that watches it both map.

What stands in it outlives the process: a kill cannot take back that a call had returned.
"""

from __future__ import annotations

import mmap
import time
from pathlib import Path

_FIELDS = ("allowed", "ready", "called", "called_at", "returned", "looped", "finished", "may_end")


class Tally:
    """Nanoseconds of the machine's monotonic clock, and counts.

    Attributes:
        words: All numbers; the durations of the calls come after the fields.
    """

    ALLOWED, READY, CALLED, CALLED_AT, RETURNED, LOOPED, FINISHED, MAY_END = range(len(_FIELDS))
    DURATIONS = len(_FIELDS)

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self.words = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")

    @classmethod
    def create(cls, path: Path, calls: int) -> Tally:
        """A file for so many calls, all of which are allowed."""
        path.write_bytes(bytes(8 * (cls.DURATIONS + calls)))
        tally = cls(path)
        tally.words[cls.ALLOWED] = calls
        tally.words[cls.MAY_END] = 1
        return tally

    @property
    def ready(self) -> bool:
        """Whether the run is open."""
        return self.words[self.READY] > 0

    @property
    def returned(self) -> int:
        """How many calls have returned."""
        return self.words[self.RETURNED]

    @property
    def looped(self) -> bool:
        """Whether all calls have returned."""
        return self.words[self.LOOPED] > 0

    @property
    def finished(self) -> bool:
        """Whether the run was ended."""
        return self.words[self.FINISHED] > 0

    def durations(self, first: int = 0) -> list[int]:
        """Nanoseconds of each call that has returned, from the `first` on."""
        return self.words[self.DURATIONS + first : self.DURATIONS + self.returned].tolist()

    def stuck(self) -> int:
        """Nanoseconds since a call began that has not returned; else 0."""
        if self.words[self.CALLED] == self.returned:
            return 0
        return time.monotonic_ns() - self.words[self.CALLED_AT]

    def stamp(self, field: int) -> None:
        """Say that something has happened now."""
        self.words[field] = time.monotonic_ns()

    def wait_for(self, field: int, least: int) -> None:
        """Until the other process has put a number there; who ends the process ends this too.

        Many that wait for long would take the processors from what is measured, so they look less
        and less often.
        """
        pause = 0.001
        while self.words[field] < least:
            time.sleep(pause)
            pause = min(1.5 * pause, 0.1)
