"""The program that trains: it makes the calls of a workload, and tells what became of each.

``python -m campaign.training FOLDER``, where the folder has the workload.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaign import clock, truth
from campaign.schedule import Call, Workload

import autolog
from autolog import session


class _Process:
    """Makes calls one after the other."""

    def __init__(self, folder: Path, file: str, workload: Workload) -> None:
        self._folder, self._workload = folder, workload
        self._teller = truth.Teller(folder / file)
        self._runs: list[Any] = []
        self._verbs: dict[str, Callable[[Call], None]] = {
            "open": self._open,
            "close": self._close,
            "metrics": lambda call: autolog.log_metrics(call.content, step=call.step),
            "params": lambda call: autolog.log_params(call.content),
            "tags": lambda call: autolog.set_tags(call.content),
            "artifact": self._log_artifact,
            "fork": self._fork,
        }

    def make(self, calls: list[Call]) -> None:
        for call in calls:
            before = _dropped()
            self._verbs[call.verb](call)
            journals = session.get().journals.values()
            tail = max((journal.tail for journal in journals), default=0)
            self._teller.tell(truth.Outcome(_dropped() - before if journals else -1, tail))
            while not (self._folder / truth.GO).exists():
                time.sleep(self._workload.pause)
            time.sleep(self._workload.pause)

    def _open(self, call: Call) -> None:
        self._runs.append(autolog.run(call.run))
        self._runs[-1].__enter__()

    def _close(self, call: Call) -> None:
        error = None if call.content["status"] == "FINISHED" else ValueError("no loss any more")
        with contextlib.suppress(ValueError):
            self._runs.pop().__exit__(type(error) if error else None, error, None)

    def _log_artifact(self, call: Call) -> None:
        ((name, text),) = call.content.items()
        (self._folder / name).write_text(str(text))
        autolog.log_artifact(self._folder / name)

    def _fork(self, _: Call) -> None:
        context = multiprocessing.get_context("fork")
        child = context.Process(target=_in_child, args=(self._folder, self._workload))
        child.start()
        (self._folder / truth.CHILD_PID).write_text(f"{child.pid}")


def _in_child(folder: Path, workload: Workload) -> None:
    _Process(folder, truth.CHILD, workload).make(list(workload.child))


def _dropped() -> int:
    return sum(journal.dropped.total() for journal in session.get().journals.values())


def _main() -> None:
    folder = Path(sys.argv[1])
    workload = Workload.of(json.loads((folder / truth.WORKLOAD).read_text()))
    clock.use(folder / truth.CLOCK)
    autolog.enable()
    _Process(folder, truth.HOST, workload).make(list(workload.calls))


if __name__ == "__main__":
    _main()
