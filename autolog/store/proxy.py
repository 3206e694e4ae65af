"""`StoreProxy`: a tracking store whose writes go to the journal, and whose reads see them."""

from __future__ import annotations

import contextlib
import logging
import sys
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cache
from typing import TYPE_CHECKING, Any

import wrapt
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.tracking._tracking_service import utils
from mlflow.utils.async_logging import async_logging_queue
from mlflow.utils.async_logging.run_operations import RunOperations
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from autolog import environment, guard, hooks, recorder, targets
from autolog.recorder import Run
from autolog.records import Status
from autolog.store import checks, entities
from autolog.store.asking import Asker, await_stored, is_offline
from autolog.store.runs import Runs
from autolog.store.workspaces import WorkspaceStore
from autolog.targets import Target
from autolog.workspace.address import is_workspace

_HOT = frozenset(["log_metric", "log_metrics", "monitor"])
"""Functions of MLflow that read a run at each call, and need only what is known here."""
_LASTING = frozenset(["_log_url", "_get_artifact_repo"])
"""Those that need what never changes: where a run is, and where its files go."""

_UPLOADING = frozenset(["_get_artifact_repo"])
"""Those of them that can do nothing without the server's own answer."""
_RESUMING = frozenset(["start_run"])
"""Those that go on with a run, whether or not the server answers now."""

_logger = logging.getLogger(async_logging_queue.__name__)
_is_on = False


def install() -> None:
    """Have the registry of this process hand out proxies; it is asked at every call."""
    global _is_on
    _is_on = True
    hooks.wrap(utils._tracking_store_registry, "get_store", _proxied)  # noqa: SLF001 - no public one


def remove() -> None:
    """Have it hand out the stores themselves."""
    global _is_on
    _is_on = False
    hooks.unwrap(utils._tracking_store_registry, "get_store")  # noqa: SLF001
    _of_workspace.cache_clear()
    recorder.get().known.leave()  # their ends go to the server itself from here on


if TYPE_CHECKING:
    _Proxy = wrapt.ObjectProxy[Any]
else:
    _Proxy = wrapt.ObjectProxy

_proxies: weakref.WeakKeyDictionary[Any, StoreProxy] = weakref.WeakKeyDictionary()
_of_workspace = cache(WorkspaceStore)


def _proxied(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_store(store_uri: Any = None, artifact_uri: Any = None) -> Any:
        if not _is_on:
            return original(store_uri, artifact_uri)
        uri = str(utils._resolve_tracking_uri(store_uri))  # noqa: SLF001
        if is_workspace(uri):
            store = _of_workspace(uri, original)
        else:
            store = original(store_uri, artifact_uri)
        with guard.shield("mlflow.store"):
            proxy = _proxies.get(store)
            if proxy is None:
                proxy = _proxies[store] = StoreProxy(store, uri)
            return proxy
        return store

    return get_store


class StoreProxy(_Proxy):
    """Stands for a tracking store; what is not defined here is the store's own.

    What MLflow or the server would refuse at once goes to the store itself, after all that was
    written before it, and is refused there with the store's own exception.
    """

    def __init__(self, store: Any, uri: str) -> None:
        super().__init__(store)
        self._self_uri = uri
        self._self_target = Target(targets.absolute(uri))
        self._self_asker = Asker(store, is_local=self._self_target.is_local)
        self._self_runs = Runs(self._self_target, self._self_asker)

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

    def get_experiment(self, experiment_id: str) -> Any:
        """As the store; where that does not answer, what is known of the experiment here."""
        if targets.name_and_id(experiment_id)[0] is None:
            with contextlib.suppress(TimeoutError):
                return self._self_asker.ask("get_experiment", experiment_id)
        return entities.experiment(experiment_id)

    def get_experiment_by_name(self, name: str) -> Any:
        """As the store; where that does not answer, an experiment with a promised id."""
        with contextlib.suppress(TimeoutError):
            return self._self_asker.ask("get_experiment_by_name", name)
        return entities.experiment(targets.promised_id(name))

    def update_run_info(self, run_id: str, run_status: Any, end_time: Any, run_name: Any) -> Any:
        is_end = run_status is not None and RunStatus.is_terminated(run_status)
        is_ended = is_end and isinstance(end_time, int)
        is_resumed = run_status == RunStatus.RUNNING and _who_asks() in _RESUMING
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

    def _is_local_run(self, run_id: str) -> bool:
        """Whether a run is one that the server does not have yet."""
        run = recorder.get().known.find(run_id)
        return run is not None and self._self_runs.is_only_here(run)

    # -- reads -----------------------------------------------------------------------------------

    def get_run(self, run_id: str) -> Any:
        with guard.shield("mlflow.get_run"):
            run = recorder.get().known.find(run_id)
            asks = _who_asks()
            if run is not None and asks in _LASTING and run.run_id is not None:
                entity = entities.told(run) or self._self_runs.learned(run)
                if entity.info.artifact_uri or asks not in _UPLOADING:
                    return entity
            elif asks in _RESUMING and (entity := self._self_runs.resumable(run_id)) is not None:
                return entity
            elif run is not None and (asks or self._self_runs.is_only_here(run)):
                return entities.of(run)
        return self.__wrapped__.get_run(self._settled(run_id))

    def knows_place(self, run: Run) -> bool:
        """Whether the server has said where the files of a run go; it is asked, if it answers."""
        return bool((entities.told(run) or self._self_runs.learned(run)).info.artifact_uri)

    def create_logged_model(self, experiment_id: Any, *args: Any, **kwargs: Any) -> Any:
        experiment_id = self._experiment(experiment_id)
        source = kwargs.get("source_run_id")
        if source is not None:
            kwargs["source_run_id"] = self._settled(source)
            if kwargs["source_run_id"] != source:
                experiment_id = self.get_run(source).info.experiment_id
        try:
            return self.__wrapped__.create_logged_model(experiment_id, *args, **kwargs)
        except MlflowException:
            if is_workspace(self._self_uri):
                guard.say_once(
                    "logged models",
                    "Azure ML has no place for MLflow's logged models, and MLflow's autologging of "
                    "XGBoost and LightGBM logs nothing else without one: log_models=False helps",
                )
            raise

    def _experiment(self, experiment_id: Any) -> Any:
        """The store's id of an experiment, also where an id was promised before it answered."""
        name, _ = targets.name_and_id(str(experiment_id))
        known = None if name is None else self.__wrapped__.get_experiment_by_name(name)
        return experiment_id if known is None else known.experiment_id

    def _settled(self, run_id: str) -> str:
        """The server's id of a run, once the server has what was written to it so far."""
        with guard.shield("mlflow.read"):
            run = recorder.get().known.find(run_id)
            if run is None:
                return run_id
            await_stored(run.journal, run.tail)
            return run.run_id or run_id
        return run_id

    def _settle_all(self) -> None:
        """Wait for the server to have what was written so far."""
        with guard.shield("mlflow.read"):
            for journal in {run.journal for run in recorder.get().known}:
                await_stored(journal, journal.tail)


def _unexplained(what: str, run_id: str) -> MlflowException:
    problem = f"{what} is not possible for run {run_id}, and the server does not say why"
    return MlflowException(problem, INVALID_PARAMETER_VALUE)


def _reads_run(name: str) -> Callable[..., Any]:
    def read(self: StoreProxy, run_id: str, *args: Any, **kwargs: Any) -> Any:
        if self._is_local_run(run_id):
            raise MlflowException(f"{name} is not possible: the server does not have run {run_id}")
        return getattr(self.__wrapped__, name)(self._settled(run_id), *args, **kwargs)

    return read


def _changes_run(name: str) -> Callable[..., Any]:
    def change(self: StoreProxy, run_id: str) -> Any:
        result = getattr(self.__wrapped__, name)(self._settled(run_id))
        with guard.shield("mlflow.change"):
            recorder.get().known.forget(run_id)
        return result

    return change


def _of_experiment(name: str) -> Callable[..., Any]:
    def call(self: StoreProxy, experiment_id: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.__wrapped__, name)(self._experiment(experiment_id), *args, **kwargs)

    return call


def _searches(name: str) -> Callable[..., Any]:
    def search(self: StoreProxy, experiment_ids: Any, *args: Any, **kwargs: Any) -> Any:
        self._settle_all()
        ids = experiment_ids and [self._experiment(each) for each in experiment_ids]
        return getattr(self.__wrapped__, name)(ids, *args, **kwargs)

    return search


def _reads_all(name: str) -> Callable[..., Any]:
    def read(self: StoreProxy, *args: Any, **kwargs: Any) -> Any:
        self._settle_all()
        return getattr(self.__wrapped__, name)(*args, **kwargs)

    return read


for _make, _names in (
    (_reads_run, "get_metric_history delete_tag record_logged_model log_outputs"),
    (_changes_run, "delete_run restore_run"),
    (_searches, "search_runs search_logged_models"),
    (_reads_all, "flush_async_logging get_logged_model finalize_logged_model"),
    (_of_experiment, "set_experiment_tag delete_experiment_tag rename_experiment"),
    (_of_experiment, "delete_experiment restore_experiment"),
):
    for _name in _names.split():
        setattr(StoreProxy, _name, _make(_name))


def _who_asks() -> str:
    """The function of MLflow that reads a run, if it is one that need not wait for it."""
    frame: Any = sys._getframe(2)  # noqa: SLF001 - who asks decides what is needed
    for _ in range(6):
        if frame is None or not str(frame.f_globals.get("__name__")).startswith("mlflow"):
            return ""
        if frame.f_code.co_name in _HOT | _LASTING | _RESUMING:
            return str(frame.f_code.co_name)
        frame = frame.f_back
    return ""
