"""`Files`: the files and models of one run, which wait in its journal to be uploaded."""

from __future__ import annotations

import json
import os  # noqa: TC003 - the types of the verbs resolve at run time
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from autolog import guard, values
from autolog.recorder.models import Budget, Duplicate, Model, OverBudget
from autolog.recorder.problems import Problems
from autolog.recorder.spool import NoRoom, Spool
from autolog.records import Artifact, Kind
from autolog.settings import Settings

if TYPE_CHECKING:
    from autolog.recorder.run import Run

MODEL = "model"
"""The name of a run's model, and its folder among the artifacts."""


class Files:
    """Verbs of a run that write files; safe from any thread.

    Nothing here raises, save for bad values under ``strict``, and `OSError` for a disk without room
    where a text, bytes or a registration are logged.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._spool = Spool(run.journal)
        self._models: Counter[str] = Counter()
        """How many models were logged here, by name."""

    def log_artifact(self, local_path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Log a file, or every file of a folder, as it is now: a copy goes to the journal.

        Raises `BadValue` under ``strict`` when there is none.
        """
        try:
            source, prefix = values.source(local_path), values.folder(folder)
        except values.BadValue as error:
            self._refuse("bad artifact", error, values.plain_text(local_path))
            return
        if source.is_dir():
            for file in sorted(path for path in source.rglob("*") if path.is_file()):
                self._log_file(file, f"{prefix}{file.relative_to(source).as_posix()}")
        else:
            self._log_file(source, f"{prefix}{source.name}")

    def log_text(self, text: str, path: str) -> None:
        """Log a small text as an artifact."""
        self.log_bytes(text.encode("utf-8", "backslashreplace"), path)

    def log_bytes(self, content: bytes, path: str) -> None:
        """Log the content of a small file as an artifact."""
        self._append(self._spool.write(content, path), path)

    def log_model(self, model: Model, chosen: Settings, name: str = MODEL) -> None:
        """Log a trained model as the settings say; one that cannot be serialised costs a line."""
        facts = {
            "key": uuid.uuid4().hex,
            "number": self._models[name] + 1,
            "step": max(0, self._run.next_epoch - 1),
            "timestamp": time.time_ns() // 1_000_000,
        }
        try:
            budget = Budget(chosen.model_megabytes, chosen.model_seconds)
            file = self._spool.model(model, budget, facts)
        except Duplicate as other:
            self._run.set_tags({f"autolog.{name}": str(other)}, by_user=False)
        except (OverBudget, NoRoom) as reason:
            self._without_model(name, f"{reason}. A higher value logs it; log_models=False none")
        except Exception as error:  # noqa: BLE001 - serialising runs the user's code
            self._without_model(name, f"it cannot be stored ({type(error).__name__}: {error})")
        else:
            self._append(file, name, Kind.MODEL)
            self._models[name] += 1
            if chosen.registered_model_name and name == MODEL:
                self.register_model(chosen.registered_model_name)

    def register_model(self, registered_name: str, name: str = MODEL) -> None:
        """Make a version of the run's model in the model registry, once the model is stored."""
        try:
            values.name("registered model", registered_name)
        except values.BadValue as error:
            self._refuse("bad name", error)
            return
        wanted = {"number": self._models[name], "registered_name": registered_name}
        file = self._spool.write(json.dumps(wanted).encode(), "registration.json")
        self._append(file, name, Kind.REGISTRATION)

    def _log_file(self, source: Path, path: str) -> None:
        try:
            file = self._spool.copy(source, path)
        except NoRoom as reason:
            self._without_file(source, "files over journal_limit", reason)
        except OSError as error:
            self._without_file(source, "artifact not copied", error)
        else:
            self._append(file, path)

    def _without_file(self, source: Path, reason: str, why: Exception) -> None:
        self._run.drop(reason, 1)
        guard.say_once(reason, f"artifact {str(source)!r} not logged: {why}")

    def _append(self, file: str, path: str, kind: str = Kind.FILE) -> None:
        self._run.write_artifact(Artifact(self._run.number, file, path, kind))

    def _without_model(self, name: str, why: str) -> None:
        guard.say_once(f"model:{why[:60]}", f"{self._run.title} is without its {name}: {why}")
        self._run.set_tags({f"autolog.{name}": f"not logged: {why}"[:500]}, by_user=False)

    def _refuse(self, reason: str, error: values.BadValue, about: str = "") -> None:
        problems = Problems(self._run.drop, by_user=True)
        problems.add(reason, error, about=about)
        problems.settle()
