"""Waiting for a server that may not answer: always with a deadline, and not again too soon."""

from __future__ import annotations

import math
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from mlflow.exceptions import MlflowException

from autolog import guard, recorder
from autolog.journal import progress
from autolog.journal.writer import Journal
from autolog.receipt import ShipperState, shipper_state
from autolog.recorder import Run
from autolog.waiting import pause, until

ANSWER_SECONDS = 2.0
"""How long the user's thread waits for a server that may not answer."""
_START_SECONDS = 3.0
"""How much longer, where a shipper has to start first."""
_BREAK_SECONDS = 30.0
"""How long a server that has not answered is not asked again."""
_STANDSTILL_SECONDS = 10.0
"""How long a read waits for the writes before it while the server takes none of them."""
_READ_SECONDS = 120.0
"""The same, while it does."""


class CannotAsk(MlflowException):
    """The server is not known, or there is no credential for it: the question did not get there."""


class Asker:
    """Asks one tracking store in the user's thread."""

    def __init__(self, store: Any, *, is_local: bool) -> None:
        """A local store is asked without a deadline: no network stands between."""
        self._store, self._is_local = store, is_local
        self._silent_until = -math.inf

    def ask(self, name: str, *arguments: Any) -> Any:
        """Call a method of the store.

        Raises `TimeoutError` when that takes too long, or has lately, or nobody can be asked, and
        else what the method raises.
        """

        def call() -> Any:
            return getattr(self._store, name)(*arguments)

        if self._is_local and not is_offline():
            return call()
        if is_offline() or self.is_silent:
            raise TimeoutError("no answer")
        try:
            return within(ANSWER_SECONDS, call)
        except (TimeoutError, CannotAsk) as error:
            self._silent_until = time.monotonic() + _BREAK_SECONDS
            raise TimeoutError(str(error)) from error

    def await_id(self, run: Run) -> None:
        """`await_id`, unless the store is known to be silent."""
        if not self.is_silent:
            await_id(run)

    @property
    def is_silent(self) -> bool:
        """True for a while after the store has not answered."""
        return time.monotonic() < self._silent_until


_impatient_until: dict[str, float] = {}
"""When a run of a target is next waited for, where the last one took too long."""


def await_id(run: Run) -> None:
    """Wait for the server to know a run, or to refuse it; not where it is known to be silent.

    Where that took too long, the next runs do not wait either, for a while.
    """

    def is_over() -> bool:
        state = progress.load(run.journal.folder)
        return run.run_id is not None or run.key in state.held or _shipper(run.journal).silent

    if is_offline() or is_over():
        return
    run.journal.request_flush()
    if time.monotonic() < _impatient_until.get(run.target.uri, -math.inf):
        return
    until(lambda: _shipper(run.journal).is_running or is_over(), _START_SECONDS)
    if not until(is_over, ANSWER_SECONDS):
        _impatient_until[run.target.uri] = time.monotonic() + _BREAK_SECONDS


_given_up: weakref.WeakKeyDictionary[Journal, tuple[int, int]] = weakref.WeakKeyDictionary()
"""How far the server had come when a read last waited in vain."""


def await_stored(journal: Journal, tail: int, standstill: float | None = None) -> None:
    """Wait for the server to have what a read must see, as long as it takes what was written.

    `standstill` is how many seconds it may take none of it, by default 10.
    """
    limit = _STANDSTILL_SECONDS if standstill is None else standstill
    if is_offline():
        return
    journal.request_flush()
    started = moved = time.monotonic()
    seen = (-1, -1)
    while (cursor := progress.load(journal.folder).cursor) < tail:
        now, shipper = time.monotonic(), _shipper(journal)
        if (cursor, shipper.stored) != seen:
            seen, moved = (cursor, shipper.stored), now
        is_late = now - moved > limit or now - started > _READ_SECONDS
        if is_late or shipper.silent or _given_up.get(journal) == seen:
            _given_up[journal] = seen
            target = journal.description["target"]
            guard.say_once(
                f"late:{target}",
                f"{target} does not have all that was logged yet: what is read there is not up to "
                "date; autolog.flush(seconds) waits longer",
            )
            return
        time.sleep(pause(now - started))


def is_offline() -> bool:
    """Whether nobody sends."""
    return recorder.get().settings.mode == "offline"


def _shipper(journal: Journal) -> ShipperState:
    return shipper_state(journal.folder.parent)


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """Make a call that may take minutes; after so many seconds it is left to itself.

    Raises `TimeoutError` then, else what the call raises.
    """
    outcome: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((call(), None))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            outcome.put((None, error))

    try:
        threading.Thread(target=run, name="mlflow-call", daemon=True).start()
    except RuntimeError:  # Python 3.12 starts no thread while it ends
        raise TimeoutError("no time is left to ask") from None
    try:
        result, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return result
