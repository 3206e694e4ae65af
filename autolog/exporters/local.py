"""A sqlite file of MLflow's, written to without loading MLflow: 25 MB instead of 225."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

from autolog import launch
from autolog.batching import MLFLOW, SQLITE, Batch
from autolog.exporters import Retryable, rows, schema
from autolog.exporters.schema import ForMLflow
from autolog.exporters.store import StoreExporter, artifact_root
from autolog.exporters.tracking import Found, TrackingExporter

if TYPE_CHECKING:
    from autolog.records import RunStart

_P = ParamSpec("_P")
_T = TypeVar("_T")

_PLAIN = re.compile(r"sqlite:///((?:/[\w.+@=,~ -]+)+)")
"""An absolute path in which no character means anything to MLflow, SQLAlchemy or sqlite."""
_WORKSPACES = ("MLFLOW_ENABLE_WORKSPACES", "MLFLOW_WORKSPACE")
_READ, _WRITE = "BEGIN", "BEGIN IMMEDIATE"
_LOCK_SECONDS = 5.0
_MAKING_SECONDS = 120.0


def is_plain(target: str, environ: Mapping[str, str]) -> bool:
    """Whether a tracking URI is a sqlite file that `LocalExporter` can write to."""
    return _PLAIN.fullmatch(target) is not None and not any(map(environ.get, _WORKSPACES))


class LocalExporter(TrackingExporter):
    """The exporter for a sqlite file: each call is one transaction, of some 10 ms for 1000 values.

    MLflow's own store takes the call where the schema of the file is not a known one, or where what
    is given may not be stored as it is. A file without tables gets them from an MLflow in a process
    of its own.
    """

    limits = SQLITE

    def __init__(self, target: str, environ: Mapping[str, str]) -> None:
        """`target` is one that `is_plain`."""
        self._target, self._environ = target, environ
        self._file = Path(target.removeprefix("sqlite:///"))
        self._mlflow = StoreExporter(target)
        self._database: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def get_run(self, run_id: str) -> Found | None:
        """See `TrackingExporter`."""
        return self._do(_READ, rows.get_run, self._mlflow.get_run, run_id)

    def search_run(self, experiment_id: str, key: str) -> Found | None:
        """See `TrackingExporter`."""
        return self._do(_READ, rows.search_run, self._mlflow.search_run, experiment_id, key)

    def create_run(self, experiment_id: str, start: RunStart, tags: Mapping[str, str]) -> str:
        """See `TrackingExporter`."""
        return self._do(
            _WRITE, rows.create_run, self._mlflow.create_run, experiment_id, start, tags
        )

    def update_run(self, run_id: str, status: str, end_time: int | None) -> None:
        """See `TrackingExporter`."""
        self._do(_WRITE, rows.update_run, self._mlflow.update_run, run_id, status, end_time)

    def get_experiment(self, name: str) -> Found | None:
        """See `TrackingExporter`."""
        return self._do(_READ, rows.get_experiment, self._mlflow.get_experiment, name)

    def create_experiment(self, name: str) -> str:
        """See `TrackingExporter`."""
        create = partial(rows.create_experiment, artifact_root=str(artifact_root(self._target)))
        return self._do(_WRITE, create, self._mlflow.create_experiment, name)

    def log_batch(self, batch: Batch) -> None:
        """See `TrackingExporter`."""
        self._do(_WRITE, rows.log_batch, self._log_by_mlflow, batch)

    def log_inputs(self, run_id: str, content: str) -> None:
        """See `Exporter.log_inputs`."""
        self._do(_WRITE, rows.log_inputs, self._mlflow.log_inputs, run_id, content)

    def close(self) -> None:
        """See `Exporter.close`."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _log_by_mlflow(self, batch: Batch) -> None:
        if len(batch) <= MLFLOW.metrics:
            self._mlflow.log_batch(batch)
            return
        for half in batch.halves():
            self._log_by_mlflow(half)

    def _do(
        self,
        begin: str,
        ours: Callable[Concatenate[sqlite3.Connection, _P], _T],
        of_mlflow: Callable[_P, _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        try:
            with self._transaction(begin) as database:
                return ours(database, *args, **kwargs)
        except sqlite3.OperationalError as error:
            # Locked by another writer, a full disk, a file that may not be opened.
            raise Retryable(f"{self._file}: {error}") from error
        except (ForMLflow, sqlite3.Error, ValueError, OverflowError):
            # A broken constraint, text that is no Unicode, an integer beyond 64 bits, no database.
            return of_mlflow(*args, **kwargs)

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        database = self._connection()
        database.execute(begin)
        try:
            schema.require_known(database)
            yield database
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def _connection(self) -> sqlite3.Connection:
        """A connection to the file that has this name now: a deleted one would take all, unseen."""
        if self._database is None or self._identity != _identity(self._file):
            self.close()
            if not self._has_tables():
                self._have_tables_made()
            self._identity = _identity(self._file)
            self._database = self._connected()
        return self._database

    def _connected(self) -> sqlite3.Connection:
        place = f"file:{quote(str(self._file))}?mode=rw"
        database = sqlite3.connect(place, uri=True, timeout=_LOCK_SECONDS, isolation_level=None)
        database.execute("PRAGMA foreign_keys = ON")
        return database

    def _has_tables(self) -> bool:
        if not self._file.exists():
            return False
        with closing(self._connected()) as database:
            return schema.is_there(database)

    def _have_tables_made(self) -> None:
        environ = {**self._environ, "MLFLOW_TRACKING_URI": self._target}
        try:
            problem = launch.answer(
                "autolog.exporters.new_database", environ, seconds=_MAKING_SECONDS
            )
        except launch.NoAnswer as silence:
            problem = str(silence)
        if problem:
            raise Retryable(f"{self._file}: {problem}")


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
