"""Every MLflow target but plain HTTP, through the store that mlflow itself resolves it to."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolog.exporters import Rejected, Retryable, refusal, wire
from autolog.exporters.tracking import RUN_KEY, Found, TrackingExporter, if_any

if TYPE_CHECKING:
    from autolog.batching import Batch
    from autolog.records import RunStart


_NO_PATH = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
"""A folder store makes a path of each name: there "a" and "a/b" cannot both be."""


class StoreExporter(TrackingExporter):
    """The exporter for databases, folders, Databricks and MLflow's plugins.

    A sqlite file too, where `LocalExporter` leaves it to MLflow. mlflow is imported at the first
    call: 3 s and 225 MB with a new sqlite file. Databases drop a point they already have. A folder
    keeps it twice; since no network can lose a reply here, that takes a process killed between the
    write and the note of it.
    """

    def __init__(self, target: str) -> None:
        self._target = target

    @cached_property
    def _store(self) -> Any:
        try:
            from mlflow.tracking._tracking_service.utils import _get_store

            resolve: Callable[..., Any] = _get_store
            root = artifact_root(self._target)
            _make_database(self._target, lambda uri: resolve(uri, root))
            store = resolve(self._target, root)
            # In the user's own process it may be a proxy that would write to the journal again.
            return getattr(store, "__wrapped__", store)
        except Exception as error:
            # A missing driver, a refused folder, a locked file: mended without touching the data.
            raise Retryable(f"{type(error).__name__}: {error}") from error

    def get_run(self, run_id: str) -> Found | None:
        """See `TrackingExporter`."""
        return if_any(lambda: _found(self._call("get_run", run_id)))

    def search_run(self, experiment_id: str, key: str) -> Found | None:
        """See `TrackingExporter`."""
        from mlflow.entities import ViewType

        query = f"tags.`{RUN_KEY}` = '{key}'"
        runs = self._call("search_runs", [experiment_id], query, ViewType.ALL, 1)
        return _found(runs[0]) if runs else None

    def create_run(self, experiment_id: str, start: RunStart, tags: Mapping[str, str]) -> str:
        """See `TrackingExporter`."""
        from mlflow.entities import RunTag

        _check_text(start.name, *chain.from_iterable(tags.items()))
        user = start.tags.get("mlflow.user", "unknown")
        entities = [RunTag(key, value) for key, value in tags.items()]
        run = self._call("create_run", experiment_id, user, start.timestamp, entities, start.name)
        return _found(run).id

    def update_run(self, run_id: str, status: str, end_time: int | None) -> None:
        """See `TrackingExporter`."""
        from mlflow.entities import RunStatus

        number = RunStatus.from_string(status)
        self._call("update_run_info", run_id, number, end_time, None)

    def get_experiment(self, name: str) -> Found | None:
        """See `TrackingExporter`."""
        experiment = self._call("get_experiment_by_name", name)
        if experiment is None:
            return None
        return Found(experiment.experiment_id, experiment.lifecycle_stage == "deleted")

    def create_experiment(self, name: str) -> str:
        """See `TrackingExporter`."""
        return str(self._call("create_experiment", name, None, None))

    def log_batch(self, batch: Batch) -> None:
        """See `TrackingExporter`."""
        from mlflow.entities import Metric, Param, RunTag

        pairs = batch.params + batch.tags
        _check_text(*(m.key for m in batch.metrics), *chain.from_iterable(pairs))
        metrics = [
            # MLflow 2 knows no links, and gets none.
            Metric(m.key, m.value, m.timestamp, m.step, **(m.link._asdict() if m.link else {}))
            for m in batch.metrics
        ]
        params = [Param(*pair) for pair in batch.params]
        tags = [RunTag(*pair) for pair in batch.tags]
        self._call("log_batch", batch.run_id, metrics, params, tags)

    def log_inputs(self, run_id: str, content: str) -> None:
        """See `Exporter.log_inputs`."""
        given = wire.inputs(content)
        try:
            datasets = list(map(_dataset_input, given["datasets"]))
            models = list(map(_model_input, given["models"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise Rejected(f"no inputs of a run: {error}") from error
        self._call("log_inputs", run_id, datasets, *([models] if models else []))

    def close(self) -> None:
        """Does nothing: mlflow shares a store's connections with the whole process."""

    def _call(self, name: str, *arguments: object) -> Any:
        """Call the store, which raises whatever its database, files or plugin raise."""
        from mlflow.exceptions import ERROR_CODE_TO_HTTP_STATUS, MlflowException

        method = getattr(self._store, name)
        try:
            return method(*arguments)
        except MlflowException as error:
            cause = error.__context__
            if isinstance(cause, OSError) and cause.errno not in _NO_PATH:
                # No reply, or a full disk: mlflow reports both as if a server had failed.
                raise Retryable(error.message) from error
            if isinstance(cause, OSError):
                raise Rejected(f"no name for a folder store: {cause.strerror}") from error
            status = ERROR_CODE_TO_HTTP_STATUS.get(error.error_code, 500)
            raise refusal(status, error.error_code, error.message) from error
        except Exception as error:
            # Without a number it is from an HTTP client that got no answer, whatever was sent.
            is_silence = isinstance(error, OSError) and error.errno is None
            raise Retryable(f"{type(error).__name__}: {error}", suspect=not is_silence) from error


def _dataset_input(given: Mapping[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    tags = [InputTag(tag["key"], tag["value"]) for tag in given.get("tags", ())]
    return DatasetInput(Dataset(**given["dataset"]), tags)


def _model_input(given: Mapping[str, Any]) -> Any:
    from mlflow.entities import LoggedModelInput

    return LoggedModelInput(given["model_id"])


def _check_text(*texts: str) -> None:
    # Stores find out in the middle of a call, and each in its own way.
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise Rejected(f"no Unicode text: {error}") from error


def _found(run: Any) -> Found:
    return Found(run.info.run_id, run.info.lifecycle_stage == "deleted")


def artifact_root(target: str) -> str | None:
    """Where the artifacts of a new sqlite store go: beside the file.

    MLflow's default, ``./mlruns``, is the same folder for its default target, but would follow the
    working directory of whichever process comes first.
    """
    path = _sqlite_file(target)
    return str(path.parent / "mlruns") if path else None


def _sqlite_file(target: str) -> Path | None:
    path = re.match(r"sqlite:///([^?]+)", target)
    return Path(path[1]) if path else None


def _make_database(target: str, resolve: Callable[[str], Any]) -> None:
    """Have a new sqlite file appear with all its tables at once.

    The user's own mlflow, or the UI started at the end of a short script, may open it meanwhile and
    would fail on tables that mlflow is still altering.
    """
    path = _sqlite_file(target)
    if path is None or path.exists():
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        resolve(target.replace(str(path), str(partial))).engine.dispose()
        os.link(partial, path)
    except OSError:  # somebody was faster, or this filesystem has no links
        return
    finally:
        partial.unlink(missing_ok=True)
