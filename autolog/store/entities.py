"""Runs as MLflow's entities: as the server gave them, else as far as they are known here."""

from __future__ import annotations

import weakref
from typing import Any

from mlflow.entities import Experiment, RunData, RunInfo, RunStatus, RunTag
from mlflow.entities import Run as Entity
from mlflow.protos.service_pb2 import RunInfo as InfoMessage
from mlflow.tracking import fluent

from autolog import targets
from autolog.recorder import Run
from autolog.records import RunStart

_DEFAULT_EXPERIMENT = "0"

_told: weakref.WeakKeyDictionary[Run, Entity] = weakref.WeakKeyDictionary()
_made: weakref.WeakKeyDictionary[Run, Entity] = weakref.WeakKeyDictionary()


def of(run: Run) -> Entity:
    """The entity of a run, the same object as long as can be, since MLflow notes inputs in it."""
    entity = _told.get(run) or _made.get(run)
    if entity is None or (entity.info.run_id == run.key and run.run_id is not None):
        entity = _made[run] = _made_up(run)
    return entity


def told(run: Run) -> Entity | None:
    """What the server has said of a run, if it was asked."""
    return _told.get(run)


def learn(run: Run, entity: Entity) -> Entity:
    """Take over what the server says of a run."""
    _told[run] = entity
    return entity


def change(run: Run, status: str | None, end_time: int | None, name: str | None) -> RunInfo:
    """Note a change of a run, and give its new description."""
    message = of(run).info.to_proto()
    if status is not None:
        message.status = RunStatus.from_string(status)  # type: ignore[assignment]
    if end_time is None:
        message.ClearField("end_time")
    else:
        message.end_time = end_time
    if name:
        message.run_name = name
    return renew(run, RunInfo.from_proto(message))


def renew(run: Run, info: RunInfo) -> RunInfo:
    """Note a new description of a run."""
    of(run)._info = info  # noqa: SLF001 - an entity has no setter
    return info


def experiment(experiment_id: str) -> Experiment:
    """An experiment of which nothing but the id is known, or the name that is promised in it."""
    name, _ = targets.name_and_id(experiment_id)
    return Experiment(experiment_id, name or "", "", "active")


def _made_up(run: Run) -> Entity:
    start = run.start
    message = InfoMessage(
        run_uuid=run.run_id or run.key,
        run_id=run.run_id or run.key,
        run_name=start.name,
        experiment_id=_experiment_id(start),
        user_id=start.tags.get("mlflow.user", "unknown"),
        status=RunStatus.from_string(run.status or "RUNNING"),  # type: ignore[arg-type]
        start_time=start.timestamp,
        lifecycle_stage="active",
    )
    tags: list[Any] = [RunTag(*pair) for pair in start.tags.items()]
    return Entity(RunInfo.from_proto(message), RunData(tags=tags))


def _experiment_id(start: RunStart) -> str:
    if start.experiment is not None:
        return targets.promised_id(start.experiment)
    # Of a run that others began, MLflow knows best: it compares the two before it goes on with one.
    others: str | None = None if start.owned else vars(fluent)["_active_experiment_id"]
    return start.experiment_id or others or _DEFAULT_EXPERIMENT
