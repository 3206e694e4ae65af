"""The lines that a user sees: where the first run goes, what became of it, and the account."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from autolog import environment, guard, targets
from autolog.journal.root import is_remote
from autolog.journal.writer import Journal
from autolog.receipt import Receipt, shipper_state
from autolog.recorder import Run
from autolog.workspace.address import Workspace, is_workspace

_RUNS_SAID_ONE_BY_ONE = 3
_SUMMARIES = frozenset(10**digits for digits in range(1, 10))
"""Numbers of runs after which the account is said."""
_NAMES_OF_A_WORKSPACE, _NEARLY = 50, 45
"""Names of metrics in a run of Azure ML, by its documentation, and how many are near that."""


class Announcer:
    """Says where the first run goes, what became of the first runs, and the account at exit.

    In between it says the account after 10, 100, 1000 runs: a loop over fits drowns nothing.
    """

    def __init__(self, receipt: Callable[[], Receipt]) -> None:
        self._receipt = receipt
        self._ended = 0
        self._waiting: int | None = None
        self._to_link: list[Run] = []
        """Runs in a workspace whose page has not been said."""

    def root_chosen(self, root: Path, configured: Path | None) -> None:
        """Say where journals are, if that is not where they should be."""
        if configured is not None and root != configured:
            guard.say(f"{configured} cannot be used; journals are in {root}")
        if is_remote(root):
            guard.say(
                f"{root} is on a filesystem of the network, which can hold a training up; "
                "set AUTOLOG_DIR to a folder on a local disk"
            )

    def run_started(self, run: Run) -> None:
        """Say where the first run goes; one that a parent process opened was said there."""
        if run.is_joined:
            return
        uri = run.target.public_uri
        look = f"  (look: mlflow ui --backend-store-uri {uri})" if targets.is_local(uri) else ""
        place = f"workspace {Workspace.parse(uri).name}" if is_workspace(uri) else uri
        guard.say_once("start", f"{run.title} -> {place}{look}")
        if is_workspace(uri):
            self._watch_names(run)

    def _watch_names(self, run: Run) -> None:
        """Say once that a run in a workspace has nearly as many metrics as it may."""
        names: set[str] = set()

        def note(keys: Collection[str]) -> None:
            names.update(keys)
            if len(names) >= _NEARLY:
                run.on_names = None
                guard.say_once(
                    "names",
                    f"{run.title} has {len(names)} metrics; Azure ML documents "
                    f"{_NAMES_OF_A_WORKSPACE} at most. What it refuses is counted in the receipt "
                    "and kept in the journal's rejected.jsonl; log fewer names, or in more runs",
                )

        run.on_names = note

    def run_ended(self, run: Run) -> None:
        """Say the account so far: after each of the first runs, then ever more rarely."""
        if run.is_joined:
            return
        self._ended += 1
        if guard.silent:  # the account reads files
            return
        if self._ended <= _RUNS_SAID_ONE_BY_ONE:
            guard.say(f"{run.title} {run.status} (so far {self._receipt()})")
        elif self._ended in _SUMMARIES:
            guard.say(f"{self._ended} runs so far, {self._receipt()}")
        self.link(run)

    def link(self, run: Run) -> None:
        """Say where the studio shows a run in a workspace, as soon as its id there is known."""
        if is_workspace(run.target.uri):
            self._to_link = [*self._to_link, run][-_RUNS_SAID_ONE_BY_ONE:]
            self._say_links()

    def _say_links(self) -> None:
        """Say where the studio shows the newest runs, once the workspace has told their ids."""
        for run in list(self._to_link):
            if run.run_id is not None:
                self._to_link.remove(run)
                page = Workspace.parse(run.target.uri).studio(run.run_id)
                guard.say(f"{run.title}: {page}")

    def process_waits(self) -> None:
        """Show on a terminal how much the end of the process still waits for."""
        left = self._receipt().pending
        if left != self._waiting:
            self._waiting = left
            guard.show(f"autolog: sending the last {left} values (Ctrl-C leaves now) ")

    def process_ends(self, journals: Mapping[Path, Journal], root: Path | None) -> None:
        """Say the account, and who sends what is still pending."""
        if self._waiting is not None:
            guard.show("")
        self._say_links()
        receipt = self._receipt()
        runs = f"{self._ended} run{'s' if self._ended > 1 else ''}, " if self._ended else ""
        guard.say(f"{runs}{receipt}")
        if receipt.pending:
            running = [state.pid for state in map(shipper_state, journals) if state.is_running]
            who = f"process {running[0]} goes on sending; " if running else ""
            guard.say(f"{who}to send what may be left: {'; '.join(_commands(journals, root))}")


def _commands(journals: Mapping[Path, Journal], root: Path | None) -> list[str]:
    """What sends that from a place that stays: for a job its outputs, wherever they are."""
    copies = environment.job_outputs()
    if copies is None:
        return [f"autolog sync {root}"]
    targets = {journal.description["target"] for journal in journals.values()}
    return [f"autolog sync {copies} --to '{target}'" for target in sorted(targets)]
