"""Waiting for a server that may not answer: always with a deadline, and not again too soon."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from autolog import recorder
from autolog.journal import progress
from autolog.journal.writer import Journal
from autolog.receipt import shipper_state
from autolog.recorder import Run
from autolog.waiting import until, until_stored

_ANSWER_SECONDS = 2.0
"""How long the user's thread waits for a server that may not answer."""
_BREAK_SECONDS = 30.0
"""How long a server that has not answered is not asked again."""
_READ_SECONDS = 10.0
"""How long a read waits for the writes before it."""


class Asker:
    """Asks one tracking store in the user's thread."""

    def __init__(self, store: Any, *, is_local: bool) -> None:
        """A local store is asked without a deadline: no network stands between."""
        self._store, self._is_local = store, is_local
        self._silent_until = -math.inf

    def ask(self, name: str, *arguments: Any) -> Any:
        """Call a method of the store.

        Raises `TimeoutError` when that takes too long, or has lately, and what the method raises.
        """
        method = getattr(self._store, name)
        if self._is_local and not is_offline():
            return method(*arguments)
        if is_offline() or self._is_silent:
            raise TimeoutError("no answer")
        try:
            return _within(_ANSWER_SECONDS, method, *arguments)
        except TimeoutError:
            self._note_silence()
            raise

    def await_id(self, run: Run) -> None:
        """Wait for the server to know a run, or to refuse it; not where it is known to be down."""

        def is_over() -> bool:
            state = progress.load(run.journal.folder)
            return run.run_id is not None or run.key in state.held or _is_down(run.journal)

        run.journal.request_flush()
        if not (is_offline() or self._is_silent or until(is_over, _ANSWER_SECONDS)):
            self._note_silence()

    @property
    def _is_silent(self) -> bool:
        return time.monotonic() < self._silent_until

    def _note_silence(self) -> None:
        self._silent_until = time.monotonic() + _BREAK_SECONDS


def await_stored(journal: Journal, tail: int) -> None:
    """Wait for the server to have what a read must see; not where it is known to be down."""
    if not (is_offline() or _is_down(journal)):
        until_stored(journal, tail, _READ_SECONDS)


def is_offline() -> bool:
    """Whether nobody sends."""
    return recorder.get().settings.mode == "offline"


def _is_down(journal: Journal) -> bool:
    return shipper_state(journal.folder.parent).down


def _within(seconds: float, call: Callable[..., Any], *arguments: Any) -> Any:
    """Make a call that may take minutes; after so many seconds it is left to itself.

    Raises `TimeoutError` then, else what the call raises.
    """
    outcome: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((call(*arguments), None))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            outcome.put((None, error))

    threading.Thread(target=run, name="mlflow-call", daemon=True).start()
    try:
        result, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return result
