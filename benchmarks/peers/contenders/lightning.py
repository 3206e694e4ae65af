"""Lightning's logger for MLflow."""

from __future__ import annotations

from peers.contenders import SERVER, Contender, Log, Place, Stored
from peers.contenders.mlflow import stored_by_mlflow


class Lightning(Contender):
    """As a Trainer calls it."""

    name = "Lightning MLFlowLogger"
    package = "lightning"
    module = "lightning"
    to = SERVER
    call = "`MLFlowLogger(...).log_metrics(metrics, step)`"

    def begin(self, place: Place) -> Log:
        """Open the run, which the logger does at its first use."""
        from lightning.pytorch.loggers import MLFlowLogger

        self._logger = MLFlowLogger(
            experiment_name="Default", run_name=place.run, tracking_uri=place.server
        )
        assert self._logger.run_id
        return self._logger.log_metrics

    def finish(self) -> None:
        """What a Trainer does at the end of a fit."""
        self._logger.finalize("success")

    def stored(self, place: Place) -> Stored:
        """As with any run of MLflow's."""
        return stored_by_mlflow(place)
