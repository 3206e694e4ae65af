"""`Nesting`: the runs and trainings that a piece of code is inside of."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from autolog.recorder.run import Run


class _Thread(threading.local):
    def __init__(self) -> None:
        self.trainings: list[object] = []
        """A mark for each training that this thread is inside of."""


class Nesting:
    """What a context has entered, and what its thread is in the middle of."""

    def __init__(self) -> None:
        self._runs: ContextVar[tuple[Run, ...]] = ContextVar("autolog_runs", default=())
        self._thread = _Thread()
        self._lock = threading.RLock()
        self._paused = 0

    @contextlib.contextmanager
    def entered(self, run: Run) -> Iterator[None]:
        """Make a run the innermost one of this context."""
        token = self._runs.set((*self._runs.get(), run))
        try:
            yield
        finally:
            self._runs.reset(token)

    def innermost(self) -> Run | None:
        """The innermost open run that this context entered."""
        for run in reversed(self._runs.get()):
            if run.status is None:
                return run
        return None

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Silence every hook of the process; explicit calls go on."""
        with self._lock:
            self._paused += 1
        try:
            yield
        finally:
            with self._lock:
                self._paused -= 1

    @property
    def in_training(self) -> bool:
        """True when hooks have nothing to do in this thread: inside a training, or paused."""
        return bool(self._thread.trainings) or self._paused > 0

    def enter_training(self, run: Run | None) -> Callable[[], None]:
        """This thread is inside a training, and this context in its run; returns what ends that.

        Trainings may end in another order than they began in, and in another context.
        """
        mark, trainings, before = object(), self._thread.trainings, self._runs.get()
        trainings.append(mark)
        if run is not None:
            self._runs.set((*before, run))

        def end() -> None:
            trainings.remove(mark)
            self._runs.set(tuple(r for r in self._runs.get() if r is not run or r in before))

        return end

    def after_fork(self) -> None:
        """In the child: what the parent was inside of goes on there only."""
        self._runs.set(())
        self._thread = _Thread()
        self._lock = threading.RLock()
