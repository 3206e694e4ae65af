"""The rows that MLflow's own store leaves in a sqlite file, written without MLflow.

Each function is one transaction of its caller's. What MLflow could refuse, change or take in
another way than the ordinary one is left to it: `ForMLflow`.
"""

from __future__ import annotations

import math
import posixpath
import re
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autolog.batching import MLFLOW
from autolog.exporters import Rejected, schema, wire
from autolog.exporters.schema import ForMLflow
from autolog.exporters.tracking import RUN_KEY, Found

if TYPE_CHECKING:
    import sqlite3

    from autolog.batching import Batch, Metric
    from autolog.records import RunStart

_RUN_NAME = "mlflow.runName"
_NAME = re.compile(r"[/\w.\- :]{1,250}")
_EXPERIMENT_NAME_LENGTH = 250
_LOCATION = re.compile(r"[^?#;]+")
"""A place that a path is added to by adding it at the end."""
_LARGEST = sys.float_info.max


# -- experiments and runs --------------------------------------------------------------------------


def get_experiment(database: sqlite3.Connection, name: str) -> Found | None:
    """The experiment with that name, a deleted one included."""
    query = "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?"
    return _found(database.execute(query, (name,)))


def create_experiment(database: sqlite3.Connection, name: str, artifact_root: str) -> str:
    """Create an experiment; its id."""
    if not name.strip() or len(name) > _EXPERIMENT_NAME_LENGTH:
        raise ForMLflow
    now = int(time.time() * 1000)
    made = database.execute(
        "INSERT INTO experiments (name, lifecycle_stage, creation_time, last_update_time)"
        " VALUES (?, 'active', ?, ?)",
        (name, now, now),
    )
    experiment_id = str(made.lastrowid)
    database.execute(
        "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
        (posixpath.join(artifact_root, experiment_id), experiment_id),
    )
    return experiment_id


def get_run(database: sqlite3.Connection, run_id: str) -> Found | None:
    """The run with that id."""
    query = "SELECT run_uuid, lifecycle_stage FROM runs WHERE run_uuid = ?"
    return _found(database.execute(query, (run_id,)))


def search_run(database: sqlite3.Connection, experiment_id: str, key: str) -> Found | None:
    """The run with that value of the tag `RUN_KEY`, deleted ones included."""
    query = (
        "SELECT runs.run_uuid, runs.lifecycle_stage FROM tags JOIN runs USING (run_uuid)"
        " WHERE tags.key = ? AND tags.value = ? AND runs.experiment_id = ?"
    )
    return _found(database.execute(query, (RUN_KEY, key, _number(experiment_id))))


def create_run(
    database: sqlite3.Connection, experiment_id: str, start: RunStart, tags: Mapping[str, str]
) -> str:
    """Create a run; its id."""
    number = _number(experiment_id)
    query = (
        "SELECT artifact_location FROM experiments"
        " WHERE experiment_id = ? AND lifecycle_stage = 'active'"
    )
    place = database.execute(query, (number,)).fetchone()
    if place is None or not _LOCATION.fullmatch(place[0] or ""):
        raise ForMLflow
    if not start.name or tags.get(_RUN_NAME, start.name) != start.name:
        raise ForMLflow
    run_id = uuid.uuid4().hex
    database.execute(
        "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id,"
        " status, start_time, source_version, lifecycle_stage, artifact_uri, experiment_id)"
        " VALUES (?, ?, 'UNKNOWN', '', '', ?, 'RUNNING', ?, '', 'active', ?, ?)",
        (
            *(run_id, start.name, start.tags.get("mlflow.user", "unknown"), start.timestamp),
            *(posixpath.join(place[0], run_id, "artifacts"), number),
        ),
    )
    _store_tags(database, run_id, {**tags, _RUN_NAME: start.name}.items())
    return run_id


def update_run(
    database: sqlite3.Connection, run_id: str, status: str, end_time: int | None
) -> None:
    """Set a run's status and end time."""
    _active_run(database, run_id)
    change = "UPDATE runs SET status = ?, end_time = COALESCE(?, end_time) WHERE run_uuid = ?"
    database.execute(change, (status, end_time, run_id))


def _active_run(database: sqlite3.Connection, run_id: str) -> int:
    """The experiment of a run that can be written to; else what MLflow says of the run."""
    query = "SELECT experiment_id, lifecycle_stage FROM runs WHERE run_uuid = ?"
    row = database.execute(query, (run_id,)).fetchone()
    if row is None:
        raise Rejected(f"Run with id={run_id} not found", code="RESOURCE_DOES_NOT_EXIST")
    experiment_id, stage = row
    if stage != "active":
        reason = f"The run {run_id} must be in the 'active' state. Current state is {stage}."
        raise Rejected(reason, code="INVALID_PARAMETER_VALUE")
    return int(experiment_id)


def _found(rows: sqlite3.Cursor) -> Found | None:
    row = rows.fetchone()
    return Found(str(row[0]), row[1] == "deleted") if row else None


def _number(experiment_id: str) -> int:
    if not experiment_id.isdecimal():
        raise ForMLflow
    return int(experiment_id)


# -- metrics, params and tags ----------------------------------------------------------------------


def log_batch(database: sqlite3.Connection, batch: Batch) -> None:
    """Store a batch, each point once. Raises `Rejected` for a param that has another value."""
    keys = {metric.key for metric in batch.metrics}
    if not all(map(_is_name, keys.union(dict(batch.params), dict(batch.tags)))):
        raise ForMLflow
    experiment_id = _active_run(database, batch.run_id)
    _add_params(database, batch.run_id, batch.params)
    _add_metrics(database, batch.run_id, batch.metrics)
    _link(database, batch.run_id, experiment_id, batch.metrics)
    _set_tags(database, batch.run_id, batch.tags)


def _is_name(name: str) -> bool:
    """Whether every MLflow takes it as the name of a metric, param or tag."""
    is_own_path = posixpath.normpath(name) == name and not name.startswith(("/", ".."))
    return _NAME.fullmatch(name) is not None and is_own_path and name != "."


def _add_params(
    database: sqlite3.Connection, run_id: str, params: Sequence[tuple[str, str]]
) -> None:
    if any(len(value) > MLFLOW.param_length for _, value in params):
        raise ForMLflow
    query = "SELECT key, value FROM params WHERE run_uuid = ?"
    stored = dict(database.execute(query, (run_id,))) if params else {}
    changed = [
        {"key": key, "old_value": stored[key], "new_value": value}
        for key, value in params
        if stored.get(key, value) != value
    ]
    if changed:
        raise Rejected(
            "Changing param values is not allowed. Params were already"
            f" logged='{changed}' for run ID='{run_id}'.",
            code="INVALID_PARAMETER_VALUE",
        )
    database.executemany(
        "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)",
        [(key, value, run_id) for key, value in params if key not in stored],
    )


def _add_metrics(database: sqlite3.Connection, run_id: str, metrics: Iterable[Metric]) -> None:
    points = [(m.step, m.timestamp, *_number_in_table(m.value), m.key, run_id) for m in metrics]
    if any(point[1] < 0 for point in points):
        raise ForMLflow
    database.executemany(
        "INSERT INTO metrics (step, timestamp, value, is_nan, key, run_uuid)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        points,
    )
    latest: dict[str, tuple[int, int, float, bool, str, str]] = {}
    for point in points:
        if point[:3] > latest.setdefault(point[4], point)[:3]:
            latest[point[4]] = point
    database.executemany(
        "INSERT INTO latest_metrics (step, timestamp, value, is_nan, key, run_uuid)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key, run_uuid) DO UPDATE SET step = excluded.step,"
        " timestamp = excluded.timestamp, value = excluded.value, is_nan = excluded.is_nan"
        " WHERE (excluded.step, excluded.timestamp, excluded.value)"
        " > (latest_metrics.step, latest_metrics.timestamp, latest_metrics.value)",
        latest.values(),
    )


def _number_in_table(value: float) -> tuple[float, bool]:
    """A value as MLflow's databases hold it, and whether it is NaN."""
    if math.isnan(value):
        return 0.0, True
    return max(-_LARGEST, min(value, _LARGEST)), False


def _link(
    database: sqlite3.Connection, run_id: str, experiment_id: int, metrics: Iterable[Metric]
) -> None:
    """Tie metrics to their models.

    There a point can have one value only: another one breaks the key, and is MLflow's to refuse.
    """
    links = [
        (
            *(m.link.model_id, m.key, m.timestamp, m.step, run_id, _number_in_table(m.value)[0]),
            *(experiment_id, m.link.dataset_name, m.link.dataset_digest),
        )
        for m in metrics
        if m.link is not None and m.link.model_id is not None
    ]
    if not links:
        return
    if not schema.knows_models(database):
        raise ForMLflow
    database.executemany(
        "INSERT INTO logged_model_metrics (model_id, metric_name, metric_timestamp_ms, metric_step,"
        " run_id, metric_value, experiment_id, dataset_name, dataset_digest)"
        " SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 WHERE NOT EXISTS (SELECT 1"
        " FROM logged_model_metrics WHERE model_id = ?1 AND metric_name = ?2"
        " AND metric_timestamp_ms = ?3 AND metric_step = ?4 AND run_id = ?5 AND metric_value = ?6)",
        links,
    )


def _set_tags(database: sqlite3.Connection, run_id: str, tags: Sequence[tuple[str, str]]) -> None:
    if any(len(value) > MLFLOW.tag_length for _, value in tags):
        raise ForMLflow
    name = dict(tags).get(_RUN_NAME)
    if name == "":
        raise ForMLflow
    if name is not None:
        database.execute("UPDATE runs SET name = ? WHERE run_uuid = ?", (name, run_id))
    _store_tags(database, run_id, tags)


def _store_tags(database: sqlite3.Connection, run_id: str, tags: Iterable[tuple[str, str]]) -> None:
    database.executemany(
        "INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)"
        " ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value",
        [(key, value, run_id) for key, value in tags],
    )


# -- inputs ----------------------------------------------------------------------------------------


_DATASET = {"name": 500, "digest": 36, "source_type": 36, "source": 65_535}
_DATASET_OPTIONS = {"schema": 1_048_575, "profile": 16_777_215}
_INPUT_TAG = {"key": 255, "value": 500}
"""Fields, and how long each may be."""


def log_inputs(database: sqlite3.Connection, run_id: str, content: str) -> None:
    """Store what a run used; a dataset is there once for each experiment."""
    given = wire.inputs(content)
    experiment_id = _active_run(database, run_id)
    for entry in given["datasets"]:
        if not isinstance(entry, dict) or not entry.keys() <= {"dataset", "tags"}:
            raise ForMLflow
        dataset = _fields(entry.get("dataset"), _DATASET, _DATASET_OPTIONS)
        tags = [_fields(tag, _INPUT_TAG) for tag in entry.get("tags") or ()]
        dataset_id = _dataset_id(database, experiment_id, dataset)
        _add_input(database, ("DATASET", dataset_id, "RUN", run_id), tags)
    if given["models"] and not schema.knows_models(database):
        raise ForMLflow
    for entry in given["models"]:
        model_id = _fields(entry, {"model_id": 36})["model_id"]
        _add_input(database, ("RUN_INPUT", run_id, "MODEL_INPUT", model_id), ())


def _fields(
    given: Any, needed: Mapping[str, int], optional: Mapping[str, int] | None = None
) -> dict[str, Any]:
    lengths = {**needed, **(optional or {})}
    if not isinstance(given, dict) or not needed.keys() <= given.keys() <= lengths.keys():
        raise ForMLflow
    for field, value in given.items():
        is_left_out = value is None and field not in needed
        if not is_left_out and not (isinstance(value, str) and len(value) <= lengths[field]):
            raise ForMLflow
    return given


def _dataset_id(
    database: sqlite3.Connection, experiment_id: int, dataset: Mapping[str, Any]
) -> str:
    identity = (experiment_id, dataset["name"], dataset["digest"])
    query = "SELECT dataset_uuid FROM datasets WHERE experiment_id = ? AND name = ? AND digest = ?"
    row = database.execute(query, identity).fetchone()
    if row is not None:
        return str(row[0])
    dataset_id = uuid.uuid4().hex
    database.execute(
        "INSERT INTO datasets (experiment_id, name, digest, dataset_uuid, dataset_source_type,"
        " dataset_source, dataset_schema, dataset_profile) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(*identity, dataset_id, dataset["source_type"], dataset["source"]),
            *(dataset.get("schema"), dataset.get("profile")),
        ),
    )
    return dataset_id


def _add_input(
    database: sqlite3.Connection, edge: tuple[str, ...], tags: Sequence[Mapping[str, str]]
) -> None:
    input_id = uuid.uuid4().hex
    added = database.execute(
        "INSERT INTO inputs (source_type, source_id, destination_type, destination_id, input_uuid)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (*edge, input_id),
    )
    if added.rowcount:
        database.executemany(
            "INSERT INTO input_tags (input_uuid, name, value) VALUES (?, ?, ?)",
            [(input_id, tag["key"], tag["value"]) for tag in tags],
        )
