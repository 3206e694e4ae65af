"""What one test's scripts left on the server, in an experiment that no other test uses."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from support import MlflowServer, Point, eventually, run_script

if TYPE_CHECKING:
    from mlflow.entities import Run

_PARENT = "mlflow.parentRunId"
_ENDED = ("FINISHED", "FAILED", "KILLED")


class Experiment:
    """A fresh experiment of a server: what scripts log there, read with MLflow's own client."""

    def __init__(self, server: MlflowServer) -> None:
        self.server = server
        self.name = f"experiment-{uuid.uuid4().hex[:12]}"
        self.env = {
            "MLFLOW_TRACKING_URI": server.url,
            "MLFLOW_EXPERIMENT_NAME": self.name,
            "AUTOLOG_BATCH_SECONDS": "0.1",
        }

    def id(self) -> str:
        """Its id; the first call makes it."""
        known = self.server.client().get_experiment_by_name(self.name)
        return known.experiment_id if known else self.server.client().create_experiment(self.name)

    def script(
        self, source: str, cwd: Path, *, code: int | None = 0, timeout: float = 90, **env: str
    ) -> str:
        """Run a script that logs here; what it printed. None accepts any exit status."""
        done = run_script(source, cwd=cwd, env={**self.env, **env}, timeout=timeout)
        assert code is None or done.returncode == code, done.stderr
        return done.stdout

    def runs(self, count: int = 1, timeout: float = 30) -> dict[str, Run]:
        """Its runs by name, once there are `count` and all have ended; a name stands once."""

        def ended() -> dict[str, Run]:
            experiment = self.server.client().get_experiment_by_name(self.name)
            assert experiment is not None, "the experiment is not there"
            found = self.server.client().search_runs([experiment.experiment_id])
            states = {run.info.run_name: run.info.status for run in found}
            assert len(found) == count, states
            assert all(status in _ENDED for status in states.values()), states
            assert len(states) == count, states
            return {run.info.run_name: run for run in found}

        return eventually(ended, timeout)

    def only_run(self, timeout: float = 30) -> Run:
        """Its only run, once ended."""
        return next(iter(self.runs(1, timeout).values()))

    def values(self, run: Run, key: str, count: int, timeout: float = 30) -> list[float]:
        """The values of a metric in order of step, once there are `count`."""

        def stored() -> list[float]:
            points = sorted(p for p in self.points(run) if p.key == key)
            assert len(points) == count, points
            return [point.value for point in points]

        return eventually(stored, timeout)

    def points(self, run: Run) -> set[Point]:
        """Every stored value of a run."""
        return self.server.points(run.info.run_id)

    @staticmethod
    def parent(run: Run) -> str | None:
        """The server's id of a run's parent."""
        return run.data.tags.get(_PARENT)
