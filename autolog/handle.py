"""`RunHandle`: a run as the user holds it, read back from the server on request."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from autolog.journal import progress
from autolog.recorder import Run

_POLL = 0.05


class Point(NamedTuple):
    """One value of a metric."""

    step: int
    value: float
    timestamp: int
    """Milliseconds since the epoch."""


class RunHandle:
    """A run of this process; empty where logging is off or no disk can hold a journal."""

    def __init__(self, run: Run | None) -> None:
        self._opened = run

    @property
    def _run(self) -> Run:
        if self._opened is None:
            raise RuntimeError("nothing is logged here: see autolog.status()")
        return self._opened

    def __repr__(self) -> str:
        return f"<autolog run {self.name} {self.run_id or 'not created yet'}>"

    @property
    def name(self) -> str:
        """The name the run was given."""
        return "" if self._opened is None else self._run.start.name

    @property
    def run_id(self) -> str | None:
        """The server's id; None until the server has created the run. Never waits."""
        if self._opened is None:
            return None
        if self._run.start.run_id:
            return self._run.start.run_id
        return progress.load(self._run.journal.folder).run_ids.get(self._run.key)

    @property
    def status(self) -> str:
        """``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``, as this process knows it."""
        return "" if self._opened is None else self._run.status or "RUNNING"

    @property
    def url(self) -> str | None:
        """Where MLflow's UI shows the run; None until it is created, or without a server."""
        run_id = self.run_id
        if run_id is None or not self._run.target.uri.startswith("http"):
            return None
        uri = self._run.target.public_uri
        return (
            f"{uri.rstrip('/')}/#/experiments/{self._mlflow_run().info.experiment_id}/runs/{run_id}"
        )

    def metrics(self, timeout: float = 30.0) -> dict[str, list[Point]]:
        """Every metric of the run as the server has it, points in order of step and time.

        Waits at most `timeout` seconds for what is logged so far to be sent; imports mlflow.
        Raises `TimeoutError` when the run is not on the server by then.
        """
        client, run = self._client(), self._mlflow_run(timeout)
        return {
            key: sorted(
                Point(m.step, m.value, m.timestamp)
                for m in client.get_metric_history(run.info.run_id, key)
            )
            for key in run.data.metrics
        }

    def params(self, timeout: float = 30.0) -> dict[str, str]:
        """The params of the run as the server has them; waits and raises as `metrics`."""
        return dict(self._mlflow_run(timeout).data.params)

    def tags(self, timeout: float = 30.0) -> dict[str, str]:
        """The tags of the run as the server has them; waits and raises as `metrics`."""
        return dict(self._mlflow_run(timeout).data.tags)

    def _client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self._run.target.uri)

    def _mlflow_run(self, timeout: float = 30.0) -> Any:
        journal = self._run.journal
        tail, deadline = journal.request_flush(), time.monotonic() + timeout
        while progress.load(journal.folder).cursor < tail and time.monotonic() < deadline:
            time.sleep(_POLL)
        run_id = self.run_id
        if run_id is None:
            raise TimeoutError(
                f"run {self.name} is not on {self._run.target.public_uri} after {timeout} s; "
                f"its values are safe: autolog sync {journal.folder}"
            )
        return self._client().get_run(run_id)
