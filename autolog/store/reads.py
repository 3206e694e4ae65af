"""`SettledStore`: a tracking store whose reads see what the journal has for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import wrapt
from mlflow.exceptions import MlflowException

from autolog import guard, recorder, targets
from autolog.recorder import Run
from autolog.store import entities
from autolog.store.asking import Asker, await_stored
from autolog.store.callers import LASTING, RESUMING, UPLOADING, who_asks
from autolog.store.runs import Runs
from autolog.targets import Target
from autolog.workspace.address import is_workspace

if TYPE_CHECKING:
    _Proxy = wrapt.ObjectProxy[Any]
else:
    _Proxy = wrapt.ObjectProxy


class SettledStore(_Proxy):
    """Stands for a tracking store; what is not defined here is the store's own."""

    def __init__(self, store: Any, uri: str) -> None:
        super().__init__(store)
        self._self_uri = uri
        self._self_target = Target(targets.absolute(uri))
        self._self_asker = Asker(store, is_local=self._self_target.is_local)
        self._self_runs = Runs(self._self_target, self._self_asker)

    def get_run(self, run_id: str) -> Any:
        with guard.shield("mlflow.get_run"):
            run = recorder.get().known.find(run_id)
            asks = who_asks()
            if run is not None and asks in LASTING and run.run_id is not None:
                entity = entities.told(run) or self._self_runs.learned(run)
                if entity.info.artifact_uri or asks not in UPLOADING:
                    return entity
            elif asks in RESUMING and (entity := self._self_runs.resumable(run_id)) is not None:
                return entity
            elif run is not None and (asks or self._self_runs.is_only_here(run)):
                return entities.of(run)
        return self.__wrapped__.get_run(self._settled(run_id))

    def knows_place(self, run: Run) -> bool:
        """Whether the server has said where the files of a run go; it is asked, if it answers."""
        return bool((entities.told(run) or self._self_runs.learned(run)).info.artifact_uri)

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

    def _is_local_run(self, run_id: str) -> bool:
        """Whether a run is one that the server does not have yet."""
        run = recorder.get().known.find(run_id)
        return run is not None and self._self_runs.is_only_here(run)


def _reads_run(name: str) -> Callable[..., Any]:
    def read(self: SettledStore, run_id: str, *args: Any, **kwargs: Any) -> Any:
        if self._is_local_run(run_id):
            raise MlflowException(f"{name} is not possible: the server does not have run {run_id}")
        return getattr(self.__wrapped__, name)(self._settled(run_id), *args, **kwargs)

    return read


def _changes_run(name: str) -> Callable[..., Any]:
    def change(self: SettledStore, run_id: str) -> Any:
        result = getattr(self.__wrapped__, name)(self._settled(run_id))
        with guard.shield("mlflow.change"):
            recorder.get().known.forget(run_id)
        return result

    return change


def _of_experiment(name: str) -> Callable[..., Any]:
    def call(self: SettledStore, experiment_id: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.__wrapped__, name)(self._experiment(experiment_id), *args, **kwargs)

    return call


def _searches(name: str) -> Callable[..., Any]:
    def search(self: SettledStore, experiment_ids: Any, *args: Any, **kwargs: Any) -> Any:
        self._settle_all()
        ids = experiment_ids and [self._experiment(each) for each in experiment_ids]
        return getattr(self.__wrapped__, name)(ids, *args, **kwargs)

    return search


def _reads_all(name: str) -> Callable[..., Any]:
    def read(self: SettledStore, *args: Any, **kwargs: Any) -> Any:
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
        setattr(SettledStore, _name, _make(_name))
