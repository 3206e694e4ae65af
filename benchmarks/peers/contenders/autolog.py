"""autolog, by its own call."""

from __future__ import annotations

import subprocess
import sys

from peers.contenders import SERVER, Contender, Log, Place, Stored
from peers.contenders.mlflow import stored_by_mlflow


class Autolog(Contender):
    """In its default mode, with a process that sends."""

    name = "autolog"
    package = "mlflow-autolog"
    module = "autolog"
    to = SERVER
    can_recover = True
    call = "`autolog.log_metrics(metrics, step)`"

    def begin(self, place: Place) -> Log:
        """Leave the rest to the defaults."""
        import autolog

        autolog.enable(tracking_uri=place.server, silent=True)
        self._run = autolog.run(place.run)
        self._run.__enter__()
        return autolog.log_metrics

    def finish(self) -> None:
        """Leave the run's block."""
        self._run.__exit__(None, None, None)

    def recover(self) -> None:
        """The command that its own messages name."""
        subprocess.run([sys.executable, "-m", "autolog", "sync"], check=True, capture_output=True)

    def stored(self, place: Place) -> Stored:
        """As with any run of MLflow's."""
        return stored_by_mlflow(place)

    @property
    def version(self) -> str:
        """Of the code, which need not be installed."""
        import autolog

        return f"{self.package} {autolog.__version__}"
