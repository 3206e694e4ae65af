"""MLflow's own calls: synchronous, asynchronous, and asynchronous with a buffer."""

from __future__ import annotations

from typing import ClassVar

from peers.contenders import NOTHING, SERVER, Contender, Log, Place, Stored


class _Mlflow(Contender):
    package = "mlflow"
    module = "mlflow"
    to = SERVER
    call = "`mlflow.log_metrics(metrics, step)`"

    def begin(self, place: Place) -> Log:
        import mlflow

        mlflow.set_tracking_uri(place.server)
        mlflow.start_run(run_name=place.run)
        return mlflow.log_metrics

    def finish(self) -> None:
        import mlflow

        mlflow.end_run()

    def stored(self, place: Place) -> Stored:
        return stored_by_mlflow(place)


class Sync(_Mlflow):
    """The default."""

    name = "MLflow sync"


class Async(_Mlflow):
    """``mlflow.config.enable_async_logging()``."""

    name = "MLflow async"
    call = f"{_Mlflow.call} after `mlflow.config.enable_async_logging()`"

    def begin(self, place: Place) -> Log:
        """Switch it on first."""
        import mlflow

        mlflow.config.enable_async_logging()
        return super().begin(place)


class Buffered(Async):
    """The same, which waits a second for more to send in one request."""

    name = "MLflow async, buffered"
    call = f"{Async.call}, with `MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS=1`"
    environ: ClassVar = {"MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS": "1"}


def stored_by_mlflow(place: Place) -> Stored:
    """Read by MLflow's client, from the store behind the server."""
    from mlflow import MlflowClient

    client = MlflowClient(place.store)
    found = client.search_runs(["0"], f"attributes.run_name = '{place.run}'")
    if not found:
        return NOTHING
    (run,) = found
    points = [
        (point.key, point.step, point.value)
        for key in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, key)
    ]
    return Stored(points, run.info.status)
