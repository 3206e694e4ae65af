"""What a test's processes have logged, read from their journals by the project's own reader."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import Point

from autolog.journal import layout
from autolog.journal.owner import Life
from autolog.journal.reader import Reader
from autolog.records import (
    Artifact,
    Decoder,
    Inputs,
    Kind,
    Metrics,
    Params,
    Record,
    RunEnd,
    RunStart,
    Tags,
    model_folder,
)


@dataclass
class LoggedRun:
    """One run, as the records say it."""

    start: RunStart
    status: str | None = None
    """None: it is still open."""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """By name, (step, value) in the order of logging."""
    uploads: list[tuple[str, bytes]] = field(default_factory=list)
    """Path and content of each artifact in the order of logging."""
    models: dict[str, Path] = field(default_factory=dict)
    """The newest model of each name: the folder of what was serialised of it."""
    inputs: list[dict[str, Any]] = field(default_factory=list)
    """Datasets with their tags, as MLflow's ``runs/log-inputs`` has them."""

    @property
    def model(self) -> str:
        """The class that the run is named after."""
        return self.start.name.rpartition("-")[0]

    @property
    def files(self) -> dict[str, bytes]:
        """Artifacts by path, as they end up."""
        return dict(self.uploads)

    @property
    def texts(self) -> dict[str, str]:
        """Artifacts by path, as text."""
        return {path: data.decode(errors="replace") for path, data in self.uploads}

    def values(self, key: str) -> list[float]:
        """The values of a metric without their steps."""
        return [value for _, value in self.metrics.get(key, [])]


Logged = Callable[[], list[LoggedRun]]
"""Gives the runs so far: see the fixture `logged`."""


def only(runs: list[LoggedRun]) -> LoggedRun:
    """The one run that there must be."""
    (run,) = runs
    return run


def logged_runs(home: Path) -> list[LoggedRun]:
    """Every run in the journals under an ``AUTOLOG_DIR``, those of one process in their order.

    Journals must be unshipped (``mode="offline"``), and short enough for one segment.
    What hooks of this process hold back comes first, as it does before a flush.
    """
    session = sys.modules.get("autolog.session")
    if session is not None:
        session.get().recorder.log_held_back()
    controls = sorted(home.glob(f"*/*/{layout.CONTROL}"))
    return [run for control in controls for run in _runs_of(control.parent)]


def logged_points(journal: Path) -> set[Point]:
    """Every value in a journal whose owner is dead and of which nothing is sent."""
    decoder = Decoder()
    decoded = [decoder.decode(frame.body) for frame in Reader(journal).frames(Life.DEAD)]
    return {
        Point(key, record.step, record.timestamp, value)
        for record in decoded
        if isinstance(record, Metrics)
        for key, value in zip(record.keys, record.values, strict=True)
    }


def _runs_of(journal: Path) -> list[LoggedRun]:
    runs: dict[int, LoggedRun] = {}
    decoder = Decoder()
    for frame in Reader(journal).frames(Life.ALIVE):
        record = decoder.decode(frame.body)
        if isinstance(record, RunStart):
            if record.run not in runs:  # else it stands again before what came after its end
                runs[record.run] = LoggedRun(record, tags=dict(record.tags))
        elif isinstance(record, Artifact):
            file = journal / layout.FILES / record.file
            runs[record.run].uploads.append((record.path, file.read_bytes()))
            if record.kind == Kind.MODEL:
                runs[record.run].models[record.path] = Path(model_folder(str(file)))
        elif record is not None:
            _note(runs[record.run], record)
    return list(runs.values())


def _note(run: LoggedRun, record: Record) -> None:
    if isinstance(record, Metrics):
        for key, value in zip(record.keys, record.values, strict=True):
            run.metrics.setdefault(key, []).append((record.step, value))
    elif isinstance(record, Params):
        run.params.update(record.params)
    elif isinstance(record, Tags):
        run.tags.update(record.tags)
    elif isinstance(record, Inputs):
        run.inputs.extend(json.loads(record.content)["datasets"])
    elif isinstance(record, RunEnd):
        run.status = record.status
