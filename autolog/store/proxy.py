"""`StoreProxy`: a tracking store whose writes go to the journal, and whose reads see them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.tracking._tracking_service import utils
from mlflow.utils.async_logging import async_logging_queue
from mlflow.utils.async_logging.run_operations import RunOperations
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from autolog import environment, guard, recorder
from autolog.recorder import Run
from autolog.records import Status
from autolog.store import checks, entities
from autolog.store.asking import is_offline
from autolog.store.callers import RESUMING, who_asks
from autolog.store.reads import SettledStore

_logger = logging.getLogger(async_logging_queue.__name__)


class StoreProxy(SettledStore):
    """Stands for a tracking store, whose own is all that is not defined here or in its base.

    What MLflow or the server would refuse at once goes to the store itself, after all that was
    written before it, and is refused there with the store's own exception.
    """

    def __reduce_ex__(self, protocol: Any) -> Any:
        return utils._get_store, (self._self_uri,)  # noqa: SLF001 - works without autolog too

    def __copy__(self) -> StoreProxy:
        return self

    def __deepcopy__(self, memo: object) -> StoreProxy:
        return self

    # -- writes ----------------------------------------------------------------------------------

    def log_batch(
        self, run_id: str, metrics: Sequence[Any], params: Sequence[Any], tags: Sequence[Any]
    ) -> None:
        refusal = self._refusal(run_id, metrics, params, tags)
        if refusal is not None:
            self._store_itself(refusal, "log_batch", run_id, metrics, params, tags)

    def log_metric(self, run_id: str, metric: Any) -> None:
        refusal = self._refusal(run_id, metrics=[metric])
        if refusal is not None:
            self._store_itself(refusal, "log_metric", run_id, metric)

    def log_param(self, run_id: str, param: Any) -> None:
        refusal = self._refusal(run_id, params=[param])
        if refusal is not None:
            self._store_itself(refusal, "log_param", run_id, param)

    def set_tag(self, run_id: str, tag: Any) -> None:
        refusal = self._refusal(run_id, tags=[tag])
        if refusal is not None:
            self._store_itself(refusal, "set_tag", run_id, tag)

    # Here too all of them are forms of the first one, as what is refused says.

    def log_batch_async(self, run_id: str, metrics: Any, params: Any, tags: Any) -> RunOperations:
        try:
            self.log_batch(run_id, metrics, params, tags)
        except Exception as error:  # noqa: BLE001 - it is the caller's, who asks for it by wait()
            _logger.error(f"Run Id {run_id}: Failed to log run data: Exception: {error}")  # noqa: G004, TRY400
            refused: Future[None] = Future()
            refused.set_exception(error)
            return RunOperations([refused])
        return RunOperations([])

    def log_metric_async(self, run_id: str, metric: Any) -> RunOperations:
        return self.log_batch_async(run_id, [metric], [], [])

    def log_param_async(self, run_id: str, param: Any) -> RunOperations:
        return self.log_batch_async(run_id, [], [param], [])

    def set_tag_async(self, run_id: str, tag: Any) -> RunOperations:
        return self.log_batch_async(run_id, [], [], [tag])

    def log_inputs(self, run_id: str, datasets: Any = None, models: Any = None) -> None:
        with guard.shield("mlflow.log_inputs"):
            content = checks.inputs(datasets, models)
            run = None if content is None else self._self_runs.followed(run_id)
            if run is not None and content is not None:
                run.write_inputs(content)
                return
        given = (datasets,) if models is None else (datasets, models)
        self._store_itself(_unexplained("log_inputs", run_id), "log_inputs", run_id, *given)

    def _refusal(
        self,
        run_id: str,
        metrics: Sequence[Any] = (),
        params: Sequence[Any] = (),
        tags: Sequence[Any] = (),
    ) -> Exception | None:
        """Write to the journal; what speaks against it, where the store itself has to refuse it."""
        with guard.shield("mlflow.write"):
            try:
                points, new_params, new_tags = checks.checked(metrics, params, tags)
            except (MlflowException, TypeError, ValueError, AttributeError) as error:
                return error
            run = self._self_runs.followed(run_id)
            if run is None:
                return _unexplained("logging", run_id)
            for key, (first, later) in run.changed_params(new_params).items():
                return checks.changed_param(run_id, key, first, later)
            run.write_points(points)
            run.write_params(new_params)
            run.write_tags(new_tags)
            return None
        return _unexplained("logging", run_id)

    def _store_itself(self, refusal: Exception, name: str, run_id: str, *arguments: Any) -> None:
        """Have the store refuse something in its own words, if it answers in time."""
        run_id = self._settled(run_id)
        try:
            self._self_asker.ask(name, run_id, *arguments)
        except TimeoutError:
            pass
        else:
            return
        checks.refuse(name, *arguments)
        raise refusal

    # -- runs ------------------------------------------------------------------------------------

    def create_run(
        self, experiment_id: Any, user_id: str, start_time: int, tags: Any, run_name: Any
    ) -> Any:
        runs = self._self_runs
        with guard.shield("mlflow.create_run"):
            tags, parent = runs.of_parent(tags)
            is_text = all(isinstance(tag.value, str) for tag in tags)  # else MLflow refuses it
            if is_text and (parent is not None or not self._self_target.is_local or is_offline()):
                run = runs.open(experiment_id, start_time, tags, run_name, parent=parent)
                entity = None if run is None else runs.created(run)
                if entity is not None:
                    return entity
        entity = self.__wrapped__.create_run(experiment_id, user_id, start_time, tags, run_name)
        with guard.shield("mlflow.create_run"):
            runs.open(experiment_id, start_time, tags, run_name, entity=entity)
        return entity

    def update_run_info(self, run_id: str, run_status: Any, end_time: Any, run_name: Any) -> Any:
        is_end = run_status is not None and RunStatus.is_terminated(run_status)
        is_ended = is_end and isinstance(end_time, int)
        is_resumed = run_status == RunStatus.RUNNING and who_asks() in RESUMING
        with guard.shield("mlflow.update_run_info"):
            if is_ended or is_resumed or self._is_local_run(run_id):
                run = self._self_runs.followed(run_id)
                if run is not None:
                    return self._changed(run, run_status, end_time, run_name)
        info = self.__wrapped__.update_run_info(
            self._settled(run_id), run_status, end_time, run_name
        )
        with guard.shield("mlflow.update_run_info"):
            run = recorder.get().known.find(run_id)
            if run is not None and run.status is None and info.status == "RUNNING":
                entities.renew(run, info)
            else:
                recorder.get().known.forget(run_id)
        return info

    def _changed(self, run: Run, status: Any, end_time: int | None, name: str | None) -> Any:
        """The new description of a run, which the journal has now."""
        text = None if status is None else RunStatus.to_string(status)
        if text == Status.RUNNING:
            run = self._self_runs.resumed(run) if run.status is not None else run
            run.resume()
        if name:
            run.write_tags({MLFLOW_RUN_NAME: name})
        if status is not None and RunStatus.is_terminated(status):
            is_jobs_own = run.start.run_id is not None and run.run_id == environment.run_id_of_job()
            recorder.get().close(run, Status.LEFT if is_jobs_own else str(text), end_time)
            run.journal.request_flush()
        return entities.change(run, text, end_time, name)


def _unexplained(what: str, run_id: str) -> MlflowException:
    problem = f"{what} is not possible for run {run_id}, and the server does not say why"
    return MlflowException(problem, INVALID_PARAMETER_VALUE)
