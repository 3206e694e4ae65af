"""`KnownRuns`: the runs that a process logs to, by every id that somebody knows them by."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from autolog.recorder.run import Run
from autolog.records import Status

_MOST = 1000


class KnownRuns:
    """Runs that are open, and the newest of those that have ended; see `Role` for whose they are.

    What is given here belongs to the recorder, which calls under its lock where order matters.
    """

    def __init__(self) -> None:
        self._ours: deque[Run] = deque(maxlen=_MOST)
        self._by_id: dict[str, Run] = {}

    def __iter__(self) -> Iterator[Run]:
        return iter([*self._ours, *self._by_id.values()])

    def add(self, run: Run, *, is_ours: bool) -> None:
        """Take note of a run that was opened."""
        if is_ours:
            self._ours.append(run)
        else:
            self._remember(run.start.run_id or run.key, run)

    def find(self, run_id: str) -> Run | None:
        """A run by the server's id or by its key."""
        known = self._by_id.get(run_id)
        if known is not None:
            return known
        for run in self:
            if run_id == run.key or (run_id != run.start.run_id and run_id == run.run_id):
                self._remember(run_id, run)
                return run
        return None

    def forget(self, run_id: str) -> None:
        """Have a run that was changed on the server asked for when it is next written to.

        What is known of it here ends, so that the end of the process changes nothing more.
        """
        run = self.find(run_id)
        if run in self.begun_for_others():
            run.set_status(Status.LEFT)
        self._by_id = {key: other for key, other in self._by_id.items() if other is not run}

    def begun_for_others(self) -> list[Run]:
        """The runs that this process began for other code and that are open, the oldest first."""
        begun = {run: None for run in self._by_id.values() if run.start.owned}
        return [run for run in begun if run.status is None and run not in self._ours]

    def leave(self) -> None:
        """The process ends: what it began for other code goes on as it is."""
        for run in self.begun_for_others():
            run.set_status(Status.LEFT)

    def clear(self) -> None:
        """Know none."""
        self._ours.clear()
        self._by_id = {}

    def _remember(self, run_id: str, run: Run) -> None:
        if len(self._by_id) >= _MOST:
            self._by_id = {key: each for key, each in self._by_id.items() if each.status is None}
        self._by_id[run_id] = run
