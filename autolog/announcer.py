"""The lines that a user sees: where the first run goes, what became of it, and the account."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from autolog import guard, settings
from autolog.receipt import Receipt, shipper_state
from autolog.recorder import Run

_RUNS_SAID_ONE_BY_ONE = 3
_SUMMARIES = frozenset(10**digits for digits in range(1, 10))
"""Numbers of runs after which the account is said."""


class Announcer:
    """Says where the first run goes, what became of the first runs, and the account at exit.

    In between it says the account after 10, 100, 1000 runs: a loop over fits drowns nothing.
    """

    def __init__(self, receipt: Callable[[], Receipt]) -> None:
        self._receipt = receipt
        self._ended = 0

    def run_started(self, run: Run) -> None:
        """Say where the first run goes."""
        uri = run.target.public_uri
        look = f"  (look: mlflow ui --backend-store-uri {uri})" if settings.is_local(uri) else ""
        guard.say_once("start", f"run {run.start.name} -> {uri}{look}")

    def run_ended(self, run: Run) -> None:
        """Say the account so far: after each of the first runs, then ever more rarely."""
        self._ended += 1
        if guard.silent:  # the account reads files
            return
        if self._ended <= _RUNS_SAID_ONE_BY_ONE:
            guard.say(f"run {run.start.name} {run.status} (so far {self._receipt()})")
        elif self._ended in _SUMMARIES:
            guard.say(f"{self._ended} runs so far, {self._receipt()}")

    def process_ends(self, groups: Iterable[Path], root: Path | None) -> None:
        """Say the account, and who sends what is still pending."""
        receipt = self._receipt()
        guard.say(f"{self._ended} run{'s' if self._ended != 1 else ''}, {receipt}")
        if receipt.pending:
            pids = [pid for group in groups if (pid := shipper_state(group).pid) is not None]
            who = f"process {pids[0]} goes on sending; " if pids else ""
            guard.say(f"{who}to send what may be left: autolog sync {root}")
