"""Files and models for any MLflow server, by MLflow's own client and repositories."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from autolog import credentials
from autolog.exporters import Rejected, Retryable
from autolog.uploading.spooled import Registration, SpooledModel

_FINAL = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
_KEY = "autolog.model_key"


class TrackingRepository:
    """The `Repository` of the tracking server that this process's environment names."""

    def __init__(self) -> None:
        self._client = MlflowClient()

    def log_file(self, run_id: str, file: Path, path: str) -> None:
        """See `Repository`."""
        credentials.await_storing(file.stat().st_size)
        with _told():
            self._client.log_artifact(run_id, str(file), path.rpartition("/")[0] or None)

    def log_model(self, run_id: str, model: SpooledModel) -> None:
        """See `Repository`.

        As a logged model where client and server know those, which is where MLflow looks for
        ``runs:/<id>/model`` too; in the artifacts of the run elsewhere.
        """
        credentials.await_storing(max(file.stat().st_size for file in model.files()))
        with _told():
            run = self._client.get_run(run_id)
            logged = self._logged_model(run, model)
            if logged is None:
                model.complete(run_id, model.name)
                self._client.log_artifacts(run_id, str(model.folder), model.name)
                noted = Model.load(str(model.folder))
                self._client._record_logged_model(run_id, noted)  # noqa: SLF001 - as MLflow does
                return
            model.complete(run_id, logged.artifact_location, logged.model_id)
            self._client.log_model_artifacts(logged.model_id, str(model.folder))
            self._client.finalize_logged_model(logged.model_id, "READY")
            self._link(run, logged.model_id, model.step)

    def register_model(self, run_id: str, wanted: Registration) -> None:
        """See `Repository`."""
        registered_name = wanted.registered_name
        with _told():
            source, model_id = self._newest(run_id, wanted.name)
            try:
                self._client.create_registered_model(registered_name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            known = self._client.search_model_versions(f"run_id = '{run_id}'")
            if any(v.name == registered_name and v.source == source for v in known):
                return
            linked: dict[str, Any] = {"model_id": model_id} if model_id else {}
            self._client.create_model_version(
                registered_name, source, run_id, await_creation_for=0, **linked
            )

    # -- logged models -----------------------------------------------------------------------------

    def _logged_model(self, run: Any, model: SpooledModel) -> Any:
        """The logged model of a spooled one, made unless it is there; None: there are no such."""
        if not hasattr(self._client, "create_logged_model"):
            return None
        experiment_id, run_id = run.info.experiment_id, run.info.run_id
        try:
            known = self._client.search_logged_models(
                [experiment_id], filter_string=f"tags.`{_KEY}` = '{model.key}'"
            )
            if known:
                return known[0]
            return self._client.create_logged_model(
                experiment_id,
                model.name,
                run_id,
                tags={_KEY: model.key},
                params=run.data.params,
            )
        except MlflowException as error:
            if _lacks_route(error):
                return None
            raise

    def _link(self, run: Any, model_id: str, step: int) -> None:
        """Tie a model to its run, and the run's newest values to the model.

        They are the same points again, which a store drops.
        """
        from mlflow.entities import LoggedModelOutput

        self._client.log_outputs(run.info.run_id, [LoggedModelOutput(model_id, step)])
        points = [
            Metric(m.key, m.value, m.timestamp, m.step, model_id=model_id, run_id=run.info.run_id)
            for m in run.data._metric_objs  # noqa: SLF001 - the only place with the steps
        ]
        for first in range(0, len(points), 1000):
            self._client.log_batch(run.info.run_id, metrics=points[first : first + 1000])

    def _newest(self, run_id: str, name: str) -> tuple[str, str | None]:
        """Where a run's newest model of a name is, and its id where it is a logged model."""
        run = self._client.get_run(run_id)
        if hasattr(self._client, "search_logged_models"):
            try:
                found = self._client.search_logged_models(
                    [run.info.experiment_id],
                    filter_string=f"name = '{name}' AND source_run_id = '{run_id}'",
                    max_results=1,
                )
            except MlflowException as error:
                if not _lacks_route(error):
                    raise
            else:
                if found:
                    return f"models:/{found[0].model_id}", found[0].model_id
        if not self._client.list_artifacts(run_id, name):
            raise Rejected(f"run {run_id} has no model {name!r} to register")
        return f"{run.info.artifact_uri}/{name}", None


def _lacks_route(error: MlflowException) -> bool:
    return error.error_code == "ENDPOINT_NOT_FOUND" or error.get_http_status_code() in (404, 405)


@contextmanager
def _told() -> Iterator[None]:
    """Have a refusal of MLflow's be one of ours."""
    try:
        yield
    except MlflowException as error:
        if error.error_code in _FINAL:
            raise Rejected(str(error), code=error.error_code) from error
        raise Retryable(str(error)) from error
