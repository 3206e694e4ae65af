"""The runs of one tracking store, as the journal has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from autolog import guard, recorder, targets
from autolog.journal import progress
from autolog.recorder import Role, Run
from autolog.records import RunStart
from autolog.store import entities
from autolog.store.asking import ANSWER_SECONDS, Asker, await_stored, is_offline
from autolog.targets import Target


class Runs:
    """Opens runs in the journal, and tells which one an id of MLflow's means."""

    def __init__(self, target: Target, asker: Asker) -> None:
        self._target, self._asker = target, asker

    def of_parent(self, tags: Sequence[Any]) -> tuple[Sequence[Any], Run | None]:
        """Tags that name the parent as the server knows it; the parent, where it does not yet."""
        others = [tag for tag in tags if tag.key != MLFLOW_PARENT_RUN_ID]
        named = next((tag.value for tag in tags if tag.key == MLFLOW_PARENT_RUN_ID), "")
        parent = recorder.get().known.find(named)
        if parent is None:
            return tags, None
        if self.is_only_here(parent):
            return others, parent
        return [*others, RunTag(MLFLOW_PARENT_RUN_ID, str(parent.run_id))], None

    def open(
        self,
        experiment_id: Any,
        start_time: int,
        tags: Sequence[Any],
        name: Any,
        *,
        parent: Run | None = None,
        entity: Any = None,
    ) -> Run | None:
        """Begin a run in the journal; the shipper creates it, unless the store has done so."""
        given = {tag.key: str(tag.value) for tag in tags}
        experiment, number = targets.name_and_id(str(experiment_id))
        start = RunStart.new(
            str(name or given.get(MLFLOW_RUN_NAME, "")),
            start_time,
            experiment=experiment,
            experiment_id=number,
            tags=given,
            parent_key=None if parent is None else parent.key,
            run_id=None if entity is None else entity.info.run_id,
        )
        return self._open(start, entity)

    def _open(self, start: RunStart, entity: Any) -> Run | None:
        run = recorder.get().open(self._target, start, Role.OTHERS)
        if run is not None and entity is not None:
            run.know_params(entity.data.params)
            entities.learn(run, entity)
        return run

    def created(self, run: Run) -> Any:
        """The run as an entity once the shipper has created it, else a local one.

        None where the server refuses it. Raises under ``strict`` where it does not answer.
        """
        self._asker.await_id(run)
        if run.key in progress.load(run.journal.folder).held:
            recorder.get().known.forget(run.key)  # the store says why, and there is no run
            return None
        if run.run_id is not None:
            return self.learned(run)
        if guard.strict:
            raise MlflowException(f"{self._target.public_uri} does not answer")
        why = "mode is offline" if is_offline() else f"{self._target.public_uri} does not answer"
        guard.say_once(
            f"local run:{self._target.uri}",
            f"{why}: {run.title} begins here, and gets its id when the server has it",
        )
        return entities.of(run)

    def learned(self, run: Run) -> Any:
        """The run as the server has it now, or as it is known here if there is no answer."""
        if run.run_id is None:
            return entities.of(run)
        try:
            entity = self._asker.ask("get_run", run.run_id)
        except (TimeoutError, MlflowException):
            return entities.of(run)
        return entities.learn(run, entity)

    def followed(self, run_id: str) -> Run | None:
        """The run of an id, whoever opened it; None for one that the store has to refuse."""
        known = recorder.get().known.find(run_id)
        if known is not None:
            return known
        entity = None
        try:
            entity = self._asker.ask("get_run", run_id)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
        except TimeoutError:
            pass  # the shipper will find out
        if entity is not None and entity.info.lifecycle_stage != "active":
            return None
        return self._open(RunStart.new(run_id, 0, run_id=run_id, owned=False), entity)

    def resumable(self, run_id: str) -> Any:
        """The entity of a run that is to go on, the server answering or not; None as `followed`."""
        run = self.followed(run_id)
        if run is None:
            return None
        if not self._asker.is_silent:
            await_stored(run.journal, run.tail, ANSWER_SECONDS)
        return self.learned(run)

    def resumed(self, run: Run) -> Run:
        """A run that has ended, open again."""
        entity, params = entities.of(run), run.as_former().params
        recorder.get().known.forget(run.key)
        again = recorder.get().open(self._target, run.start, Role.OTHERS)
        if again is None:
            return run
        again.know_params(params)
        entities.learn(again, entity)
        return again

    def is_only_here(self, run: Run) -> bool:
        """Whether the server does not have the run yet, and will not have it soon."""
        self._asker.await_id(run)
        return run.run_id is None
