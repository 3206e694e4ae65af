"""The wait at the end of the process for what it logged, while that moves and in bounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from autolog import environment, targets
from autolog.journal import progress
from autolog.journal.writer import Journal
from autolog.receipt import shipper_state
from autolog.settings import Settings
from autolog.waiting import pause

_STANDSTILL, _STANDSTILL_OF_FILES = 5.0, 20.0
"""Seconds without any movement that end the wait: who uploads may have MLflow to load first."""
_QUIET = 1.0
"""Seconds that the end of the process may take without a word."""


def drain(journals: Mapping[Path, Journal], chosen: Settings, say: Callable[[], None]) -> None:
    """Wait for the values, params and ends of runs in the journal of each group, as `chosen` says.

    For files too where the machine goes away with the process: elsewhere the shipper outlives it.
    `say` is called over and over while that takes its time.
    """
    is_ephemeral = environment.is_ephemeral()
    budget = _budget(journals.values(), chosen, is_ephemeral=is_ephemeral)
    wanted = {journal: journal.request_flush() for journal in journals.values()}
    started = moved = time.monotonic()
    seen: object = None
    while True:
        states = {journal: progress.load(journal.folder) for journal in wanted}
        lacks_values = any(states[journal].cursor < tail for journal, tail in wanted.items())
        lacks_files = is_ephemeral and any(state.uploads for state in states.values())
        if not (lacks_values or lacks_files):
            return
        now = time.monotonic()
        shippers = [shipper_state(group) for group in journals]
        mark = (
            [(state.cursor, len(state.uploads)) for state in states.values()],
            [(shipper.stored, shipper.sending) for shipper in shippers],
        )
        if mark != seen:
            seen, moved = mark, now
        is_down = any(shipper.down for shipper in shippers)
        limit = chosen.exit_timeout_local if is_down else budget
        standstill = _STANDSTILL if lacks_values else _STANDSTILL_OF_FILES
        if now - started > limit or now - moved > min(limit, standstill):
            return
        if now - started > _QUIET:
            say()
        time.sleep(pause(now - started))


def _budget(journals: Iterable[Journal], chosen: Settings, *, is_ephemeral: bool) -> float:
    if is_ephemeral:
        return chosen.exit_timeout_ephemeral
    is_local = all(targets.is_local(journal.description["target"]) for journal in journals)
    return chosen.exit_timeout_local if is_local else chosen.exit_timeout
