"""Aim, into a local repository."""

from __future__ import annotations

from peers.contenders import NOTHING, Contender, Log, Place, Stored


class Aim(Contender):
    """Writes into an embedded database within the call."""

    name = "Aim"
    package = "aim"
    module = "aim"
    call = "`run.track(metrics, step=step)`, without monitors of the hardware"

    def begin(self, place: Place) -> Log:
        """Without monitors and captured output, which log more than metrics."""
        from aim import Run

        self._run = run = Run(
            repo=place.folder,
            system_tracking_interval=None,
            log_system_params=False,
            capture_terminal_logs=False,
        )
        return lambda metrics, step: run.track(metrics, step=step)

    def finish(self) -> None:
        """Close the run."""
        self._run.close()

    def stored(self, place: Place) -> Stored:
        """Every metric that its repository finds once it has indexed it, as its dashboard does."""
        from aim import Repo
        from aim.sdk.index_manager import RepoIndexManager

        if not Repo.exists(place.folder):
            return NOTHING
        repo = Repo(place.folder)
        for run_hash in repo.list_all_runs():
            RepoIndexManager.get_index_manager(repo).index(run_hash)
        runs = list(Repo(place.folder).iter_runs())
        if not runs:
            return NOTHING
        (run,) = runs
        points = [
            (metric.name, step, value)
            for metric in run.metrics()
            for step, (value,) in metric.data.view("val").items()
        ]
        return Stored(points, "active" if run.active else "ended")
