"""The services of SDK v1 beside MLflow: run history and the metrics of a run."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.azureml.faults import problem
from tests.azureml.ledger import Ledger, json_number
from tests.azureml.tokens import JOB, Tokens

if TYPE_CHECKING:
    from starlette.requests import Request

    from tests.azureml.place import Place
    from tests.azureml.upstream import Upstream

_STATUS = {
    "RUNNING": "Running",
    "SCHEDULED": "Queued",
    "FINISHED": "Completed",
    "FAILED": "Failed",
    "KILLED": "Canceled",
}


class History:
    """Experiments, runs and the tokens of jobs below ``/history/v1.0<scope>``."""

    def __init__(self, place: Place, upstream: Upstream, ledger: Ledger, tokens: Tokens) -> None:
        self._upstream = upstream
        self._ledger = ledger
        self._tokens = tokens
        base = f"/history/v1.0{place.scope}"
        by_name, by_id = f"{base}/experiments/{{experiment}}", f"{base}/experimentids/{{id}}"
        metrics = f"/metric/v2.0{place.scope}/runs/{{run}}"
        self.routes = [
            Route(f"{by_id}/runs/{{run}}/token", self.token),
            Route(f"{by_id}/runs/{{run}}", self.run, methods=["GET", "PATCH"]),
            Route(f"{by_id}/runs/{{run}}/details", self.details),
            Route(f"{base}/runs/{{run}}/details", self.details),
            Route(by_id, self.experiment),
            Route(f"{by_name}/runs/{{run}}", self.run, methods=["GET", "PATCH"]),
            Route(f"{by_name}/runs/{{run}}/details", self.details),
            Route(by_name, self.experiment, methods=["GET"]),
            Route(by_name, self.create_experiment, methods=["POST"]),
            Route(f"{metrics}/list", self.metric_names, methods=["POST"]),
            Route(f"{metrics}/full", self.metric, methods=["POST"]),
        ]

    # -- experiments and runs ----------------------------------------------------------------------

    async def experiment(self, request: Request) -> Response:
        """An experiment by its name or id."""
        asked = request.path_params
        try:
            if "id" in asked:
                found = await self._upstream.call(
                    "GET", "experiments/get", experiment_id=asked["id"]
                )
            else:
                name = asked["experiment"]
                found = await self._upstream.call(
                    "GET", "experiments/get-by-name", experiment_name=name
                )
        except LookupError:
            return problem(404, "Experiment not found.")
        return JSONResponse(_experiment(found["experiment"]))

    async def create_experiment(self, request: Request) -> Response:
        """A new experiment."""
        name = request.path_params["experiment"]
        created = await self._upstream.call("POST", "experiments/create", name=name)
        return JSONResponse(
            _experiment({"experiment_id": created["experiment_id"], "name": name}), 200
        )

    async def run(self, request: Request) -> Response:
        """A run; what SDK v1 changes in it is not kept."""
        described = await self._run(request.path_params["run"])
        return problem(404, "Run not found.") if described is None else JSONResponse(described)

    async def details(self, request: Request) -> Response:
        """A run with what became of it."""
        described = await self._run(request.path_params["run"])
        if described is None:
            return problem(404, "Run not found.")
        return JSONResponse({**described, "runDefinition": {}, "logFiles": {}, "warnings": []})

    async def token(self, request: Request) -> Response:
        """The next token of a job, for the one that it has."""
        run_id = request.path_params["run"]
        described = await self._run(run_id)
        if described is None or described["experimentId"] != request.path_params["id"]:
            return problem(404, "Run not found.")
        expiry = self._tokens.now() + self._tokens.lifetime
        return JSONResponse(
            {
                "token": self._tokens.issue(JOB, run=run_id),
                "expiryTimeUtc": _utc(expiry * 1000),
            }
        )

    async def _run(self, run_id: str) -> dict[str, Any] | None:
        try:
            found = await self._upstream.call("GET", "runs/get", run_id=self._ledger.inward(run_id))
        except LookupError:
            return None
        info, data = found["run"]["info"], found["run"]["data"]
        ended = info.get("end_time")
        tags = {tag["key"]: tag["value"] for tag in data.get("tags", [])}
        return {
            "runId": run_id,
            "runUuid": run_id,
            "runNumber": 1,
            "rootRunId": run_id,
            "experimentId": info["experiment_id"],
            "status": _STATUS[info["status"]],
            "displayName": info.get("run_name"),
            "createdUtc": _utc(info["start_time"]),
            "startTimeUtc": _utc(info["start_time"]),
            "endTimeUtc": _utc(ended) if ended else None,
            "dataContainerId": f"dcid.{run_id}",
            "tags": tags,
            "properties": {},
            "parameters": {p["key"]: p["value"] for p in data.get("params", [])},
            "inputs": {},
            "outputs": {},
        }

    # -- metrics -----------------------------------------------------------------------------------

    async def metric_names(self, request: Request) -> Response:
        """The metrics of a run and what a row of each has."""
        names = self._ledger.metric_names(self._ledger.inward(request.path_params["run"]))
        found = [
            {"metricKey": {"namespace": "", "name": name}, "columns": {name: "Double"}}
            for name in names
        ]
        return JSONResponse({"value": found, "continuationToken": None})

    async def metric(self, request: Request) -> Response:
        """Every value of one metric, doubles included."""
        run_id = request.path_params["run"]
        name = (await request.json())["metricName"]
        points = self._ledger.history(self._ledger.inward(run_id), name)
        rows = [
            {
                "metricId": f"{name}-{number}",
                "createdUtc": _utc(point.timestamp),
                "step": point.step,
                "data": {name: json_number(point.value)},
            }
            for number, point in enumerate(points)
        ]
        return JSONResponse(
            {
                "name": name,
                "columns": {name: "Double"},
                "value": rows,
                "properties": {"uxMetricType": "azureml.v1.scalar"},
                "dataContainerId": f"dcid.{run_id}",
                "continuationToken": None,
            }
        )


def _experiment(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "experimentId": found["experiment_id"],
        "name": found["name"],
        "description": None,
        "createdUtc": "2026-01-01T00:00:00.0000000+00:00",
        "tags": {},
        "archivedTime": None,
        "retainForLifetimeOfWorkspace": False,
        "artifactLocation": None,
    }


def _utc(milliseconds: float) -> str:
    """The service's way to write a time: seven digits behind the second."""
    moment = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f0+00:00")
