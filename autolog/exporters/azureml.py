"""The exporter for workspaces of Azure Machine Learning: MLflow's API behind Azure's own rules."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from autolog.batching import AZUREML, Batch
from autolog.exporters import Rejected, Retryable, azure_files, azure_tokens, wire
from autolog.exporters.azure_tokens import Tokens
from autolog.exporters.bearer import Fetch
from autolog.exporters.rest import Credentials, RestExporter
from autolog.exporters.tracking import if_any
from autolog.workspace.address import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from autolog.batching import Metric

_PAGE = 999
"""Points of a history in one reply; the service takes less than 1,000."""


class _Cloud(NamedTuple):
    arm: str
    authority: str


_CLOUDS = {
    "AzureCloud": _Cloud("management.azure.com", "login.microsoftonline.com"),
    "AzureUSGovernment": _Cloud("management.usgovcloudapi.net", "login.microsoftonline.us"),
    "AzureChinaCloud": _Cloud("management.chinacloudapi.cn", "login.chinacloudapi.cn"),
}
_ARM_VERSION = "2022-05-01"
_NOBODY = Credentials(netrc=False)
"""For an address that others ask without a token: it is not told ours either."""
_UNAUTHORIZED = frozenset({401, 403})
_NOT_TAKEN = _UNAUTHORIZED | {404, 429}
"""Statuses of a reply that says for certain that nothing was stored."""


class AzureExporter(RestExporter):
    """Sends to one workspace.

    What the service has is read back where a former process may have sent more than it noted, and
    of a batch whose reply was lost: it is not known to drop a point that it is sent twice.
    """

    limits = AZUREML
    default_experiment = "Default"

    def __init__(
        self, workspace: Workspace, environ: Mapping[str, str], token: Fetch | None = None
    ) -> None:
        """Without `token` those of the environment are used."""
        super().__init__(workspace.uri, self._bearer)
        self._workspace = workspace
        self._cloud = _CLOUDS.get(environ.get("AZUREML_CURRENT_CLOUD", ""), _CLOUDS["AzureCloud"])
        self._experiments: dict[str, str] = {}
        self._created: set[str] = set()
        """Runs that have nothing from before this exporter."""
        self._found: dict[_Series, set[_Point]] = {}
        """What the others had when they were first sent to, and what of doubtful points is there;
        without what has been left out of a batch since."""
        self._doubtful: dict[_Series, set[_Point]] = {}
        """What was sent and not answered, until it is: no more than a batch of each journal."""
        self._uploads = azure_files.Uploads()
        self._tokens = Tokens(token) if token is not None else self._tokens_of(environ)

    # -- tokens ------------------------------------------------------------------------------------

    def _tokens_of(self, environ: Mapping[str, str]) -> Tokens:
        audience = f"https://{self._cloud.arm}/.default"
        identity = azure_tokens.from_identity(environ, audience, self._cloud.authority)
        first = environ.get("MLFLOW_TRACKING_TOKEN") or environ.get("AZUREML_RUN_TOKEN")
        run_id = environ.get("AZUREML_RUN_ID") or environ.get("MLFLOW_RUN_ID")
        if not (first and run_id and self._workspace.host):  # a job's own has one
            return Tokens(azure_tokens.spaced(identity), first)
        experiment_id = environ.get("MLFLOW_EXPERIMENT_ID", "")

        def renewed() -> str:
            """The next token of a job, for the one it has, though it be refused elsewhere."""
            present = Credentials(token=self._tokens.newest, netrc=False)
            chosen = experiment_id or self._experiment_of(run_id, present)
            url = self._service("history", f"experimentids/{chosen}/runs/{run_id}/token")
            return str(wire.at(self._send("GET", url, credentials=present), "token"))

        either = azure_tokens.from_first(renewed, identity)
        return Tokens(azure_tokens.spaced(either), first)

    def token(self) -> str:
        """The token of the moment. Raises `Retryable` where there is none."""
        return self._tokens.current()

    def refuse_token(self) -> None:
        """See `Exporter.refuse_token`."""
        self._tokens.refuse()

    def _bearer(self) -> Credentials:
        return Credentials(token=self.token(), netrc=False)

    def tend(self) -> None:
        """Fetch the next token in time: a job's old one, expired, would not get it."""
        with contextlib.suppress(Retryable):  # said when something is to be sent
            self.token()

    # -- requests ----------------------------------------------------------------------------------

    @property
    def _base(self) -> str:
        return f"https://{self._host}/mlflow/v2.0{self._workspace.path}"

    def _send(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        params: Mapping[str, str] | None = None,
        credentials: Credentials | None = None,
    ) -> dict[str, Any]:
        try:
            return super()._send(method, url, body, params, credentials)
        except Retryable as problem:
            if credentials is not None or problem.status not in _UNAUTHORIZED:
                raise
            self.refuse_token()
        return super()._send(method, url, body, params)

    def _service(self, service: str, path: str) -> str:
        return f"https://{self._host}/{service}/v1.0{self._workspace.path}/{path}"

    @property
    def _host(self) -> str:
        """The host of the workspace's region, which its own page knows."""
        if not self._workspace.host:
            page = f"https://{self._cloud.arm}{self._workspace.path}"
            known = self._send("GET", page, params={"api-version": _ARM_VERSION})
            discovery = str(wire.at(known, "properties", "discoveryUrl"))
            services = self._send("GET", discovery, credentials=_NOBODY)
            host = str(wire.at(services, "api")).partition("://")[2].strip("/")
            self._workspace = self._workspace.at(host)
        return self._workspace.host

    def _experiment_of(self, run_id: str, credentials: Credentials | None = None) -> str:
        if run_id not in self._experiments:
            url = f"{self._base}/api/2.0/mlflow/runs/get"
            reply = self._send("GET", url, None, {"run_id": run_id}, credentials)
            self._experiments[run_id] = str(wire.at(reply, "run", "info", "experiment_id"))
        return self._experiments[run_id]

    @property
    def address(self) -> str:
        """Where the workspace is or, while that is not known, who knows it."""
        return f"https://{self._workspace.host or self._cloud.arm}"

    @property
    def uri(self) -> str:
        """The tracking URI with its host. Raises `Retryable` where that cannot be had."""
        return self._workspace.at(self._host).uri

    # -- what the workspace takes ------------------------------------------------------------------

    def create_run(self, experiment_id: str, start: Any, tags: Mapping[str, str]) -> str:
        """See `TrackingExporter`."""
        run_id = super().create_run(experiment_id, start, tags)
        self._created.add(run_id)
        return run_id

    def log_batch(self, batch: Batch) -> None:
        """See `TrackingExporter`."""
        wanted = self._unstored(batch)
        if wanted:
            try:
                super().log_batch(wanted)
            except Retryable as problem:
                if problem.status not in _NOT_TAKEN:
                    self._doubt(wanted)
                raise
        for metric in batch.metrics:
            if found := self._found.get((batch.run_id, metric.key)):
                found.discard(_point(metric))

    def log_inputs(self, run_id: str, content: str) -> None:
        """See `Exporter.log_inputs`."""
        try:
            super().log_inputs(run_id, content)
        except Retryable as problem:
            if problem.status != 404:
                raise
            raise Rejected("the workspace takes no inputs of runs") from problem

    def upload(self, run_id: str, file: Path, path: str) -> str:
        """Store a file in a run; see `azure_files.Uploads.upload`."""

        def send(
            method: str, what: str, body: bytes | None, query: Mapping[str, str] | None
        ) -> dict[str, Any]:
            run = f"experiments/{self._experiment_of(run_id)}/runs/{run_id}"
            return self._send(method, self._service("history", f"{run}/{what}"), body, query)

        return self._uploads.upload(send, file, path)

    def _doubt(self, batch: Batch) -> None:
        for metric in batch.metrics:
            points = self._doubtful.setdefault((batch.run_id, metric.key), set())
            points.add(_point(metric))

    def _unstored(self, batch: Batch) -> Batch:
        """A batch without the points that the run has."""
        for key in {metric.key for metric in batch.metrics}:
            self._look_for((batch.run_id, key))
        metrics = tuple(
            metric
            for metric in batch.metrics
            if not (found := self._found.get((batch.run_id, metric.key)))
            or _point(metric) not in found
        )
        return Batch(batch.run_id, metrics, batch.params, batch.tags)

    def _look_for(self, series: _Series) -> None:
        """Read what the run may have of a metric, unless that is known."""
        run_id, key = series
        if run_id not in self._created and series not in self._found:
            self._found[series] = set(self._history(run_id, key))
        elif doubtful := self._doubtful.get(series):
            stored = doubtful.intersection(self._history(run_id, key))
            self._found.setdefault(series, set()).update(stored)
        self._doubtful.pop(series, None)

    def _history(self, run_id: str, key: str) -> Iterator[_Point]:
        query = {"run_id": run_id, "metric_key": key, "max_results": str(_PAGE)}
        while True:
            reply = if_any(lambda: self.call("GET", "metrics/get-history", params=query))
            if reply is None:
                return
            for point in reply.get("metrics", ()):
                with contextlib.suppress(LookupError, TypeError, ValueError):
                    value = float(point["value"])
                    yield _key(int(point["timestamp"]), int(point.get("step", 0)), value)
            if not reply.get("next_page_token"):
                return
            query["page_token"] = str(reply["next_page_token"])


_Series = tuple[str, str]
"""A run and the name of a metric."""
_Point = tuple[int, int, str]
"""Timestamp, step and value; the value as text, for NaN is not equal to itself."""


def _point(metric: Metric) -> _Point:
    return _key(metric.timestamp, metric.step, metric.value)


def _key(timestamp: int, step: int, value: float) -> _Point:
    return timestamp, step, "nan" if math.isnan(value) else repr(value)
