"""`RunHandle`: a run as the user holds it, read back from the server on request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from autolog import recorder
from autolog.recorder import Run
from autolog.waiting import until_stored
from autolog.workspace.address import Workspace, is_workspace

_PAGE = 999
"""Points in one reply; a workspace of Azure ML gives less than 1,000."""


class Point(NamedTuple):
    """One value of a metric."""

    step: int
    value: float
    timestamp: int
    """Milliseconds since the epoch."""


def _history(client: Any, run_id: str, key: str) -> Iterator[Point]:
    """The points of a metric, by the page: a workspace refuses what MLflow's client asks for."""
    store, token = client._tracking_client.store, None  # noqa: SLF001 - no public way to ask so
    while True:
        page = store.get_metric_history(run_id, key, max_results=_PAGE, page_token=token)
        yield from (Point(metric.step, metric.value, metric.timestamp) for metric in page)
        token = page.token
        if not token:
            return


class RunHandle:
    """A run of this process; empty where logging is off or no disk can hold a journal.

    ``metrics``, ``params``, ``tags`` and ``url`` ask the server, by mlflow; the rest never waits.
    """

    def __init__(self, run: Run | None) -> None:
        self._run = run

    def __repr__(self) -> str:
        return f"<autolog run {self.name or 'of nothing'} {self.run_id or 'not created yet'}>"

    @property
    def name(self) -> str:
        """The name the run was given; of an adopted run its id."""
        return "" if self._run is None else self._run.start.name

    @property
    def run_id(self) -> str | None:
        """The server's id; None until the server has created the run."""
        return None if self._run is None else self._run.run_id

    @property
    def status(self) -> str:
        """``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``, as this process knows it."""
        return "" if self._run is None else self._run.status or "RUNNING"

    @property
    def url(self) -> str | None:
        """Where MLflow's UI or Azure's studio shows the run; None until it is there, or locally."""
        run_id = self.run_id
        if self._run is None or run_id is None:
            return None
        if is_workspace(self._run.target.uri):
            return Workspace.parse(self._run.target.uri).studio(run_id)
        if not self._run.target.uri.startswith("http"):
            return None
        experiment = self._client(self._run).get_run(run_id).info.experiment_id
        uri = self._run.target.public_uri.rstrip("/")
        return f"{uri}/#/experiments/{experiment}/runs/{run_id}"

    def metrics(self, timeout: float = 30.0) -> dict[str, list[Point]]:
        """Every metric of the run as the server has it, points in order of step and time.

        Waits at most `timeout` seconds for what is logged so far to be sent.
        Raises `TimeoutError` when the run is not on the server by then.
        """
        if self._run is None:
            return {}
        client, run = self._client(self._run), self._sent(self._run, timeout)
        return {
            key: sorted(
                _history(client, run.info.run_id, key),
                key=lambda point: (point.step, point.timestamp),
            )
            for key in run.data.metrics
        }

    def params(self, timeout: float = 30.0) -> dict[str, str]:
        """The params of the run as the server has them; waits and raises as `metrics`."""
        return {} if self._run is None else dict(self._sent(self._run, timeout).data.params)

    def tags(self, timeout: float = 30.0) -> dict[str, str]:
        """The tags of the run as the server has them; waits and raises as `metrics`."""
        return {} if self._run is None else dict(self._sent(self._run, timeout).data.tags)

    @staticmethod
    def _client(run: Run) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=run.target.uri)

    def _sent(self, run: Run, timeout: float) -> Any:
        """The run as mlflow reads it, once everything logged so far is sent."""
        recorder.get().log_held_back()
        journal = run.journal
        until_stored(journal, journal.tail, timeout)
        run_id = self.run_id
        if run_id is None:
            raise TimeoutError(
                f"run {self.name} is not on {run.target.public_uri} after {timeout} s; "
                f"its values are safe: autolog sync {journal.folder}"
            )
        return self._client(run).get_run(run_id)
