"""trackio, into its local database."""

from __future__ import annotations

from typing import ClassVar

from peers.contenders import NOTHING, Contender, Log, Place, Stored

_PROJECT = "peers"


class Trackio(Contender):
    """A thread writes every half second."""

    name = "trackio"
    package = "trackio"
    module = "trackio"
    call = "`trackio.log(metrics, step)`, without monitors of the hardware"
    environ: ClassVar = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def begin(self, place: Place) -> Log:
        """Without a Space: locally."""
        import trackio

        trackio.init(
            project=_PROJECT, name=place.run, embed=False, auto_log_gpu=False, auto_log_cpu=False
        )
        return trackio.log

    def finish(self) -> None:
        """Wait until all is written."""
        import trackio

        trackio.finish()

    def stored(self, place: Place) -> Stored:
        """What its own storage class reads."""
        from trackio.sqlite_storage import SQLiteStorage

        logs = SQLiteStorage.get_logs(_PROJECT, place.run)
        if not logs:
            return NOTHING
        points = [
            (key, entry["step"], value)
            for entry in logs
            for key, value in entry.items()
            if isinstance(value, float)
        ]
        return Stored(points, "has none")
