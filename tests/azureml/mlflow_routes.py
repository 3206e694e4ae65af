"""MLflow's API as the workspace has it: a part of the routes, within the service's limits."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.azureml.ledger import Ledger, json_number
from tests.azureml.limits import Limits, Refused

if TYPE_CHECKING:
    from starlette.requests import Request

    from tests.azureml.place import Place
    from tests.azureml.upstream import Upstream

_KNOWN = re.compile(
    r"experiments/(create|get|get-by-name|search|list|update|delete|restore|set-experiment-tag)"
    r"|runs/(create|get|update|delete|restore|search|log-metric|log-parameter|log-batch|set-tag"
    r"|delete-tag|log-model|log-inputs)"
    r"|metrics/get-history"
    r"|(registered-models|model-versions)/[\w/-]+"
)
"""What Azure serves of MLflow's API; all else is an empty 404."""

Handler = Callable[[str, dict[str, Any]], Awaitable[Response]]


class MlflowRoutes:
    """The tracking and registry routes below ``/mlflow/v2.0<scope>/api/2.0``."""

    def __init__(self, place: Place, upstream: Upstream, ledger: Ledger, limits: Limits) -> None:
        self._upstream = upstream
        self._ledger = ledger
        self._limits = limits
        self._batches: set[str] = set()
        base = f"/mlflow/{{version}}{place.scope}/api/2.0"
        preview = f"{base}/preview/mlflow/runs"
        self.routes = [
            Route(f"{preview}/log-batch-async", self.log_batch_async, methods=["POST"]),
            Route(f"{preview}/get-run-data-status", self.run_data_status),
            Route(
                f"{base}/mlflow/{{endpoint:path}}",
                self.any,
                methods=["GET", "POST", "PATCH", "DELETE"],
            ),
        ]
        self._writes: dict[str, Handler] = {
            "runs/log-batch": self._log_batch,
            "runs/log-metric": self._log_metric,
            "runs/log-parameter": self._log_parameter,
            "runs/set-tag": self._set_tag,
            "runs/create": self._create,
        }

    async def any(self, request: Request) -> Response:
        """Pass on what Azure knows."""
        endpoint = request.path_params["endpoint"]
        if not _KNOWN.fullmatch(endpoint):
            return Response(status_code=404)
        query = self._ledger.inward(str(request.query_params))
        body = self._ledger.inward((await request.body()).decode())
        try:
            if endpoint == "metrics/get-history":
                return await self._history(request, query)
            if write := self._writes.get(endpoint):
                return await write(body, _read(body))
        except Refused as refusal:
            return refusal.reply
        return await self._upstream.pass_on(request.method, endpoint, query, body.encode())

    # -- writing -----------------------------------------------------------------------------------

    async def _log_batch(self, body: str, asked: dict[str, Any]) -> Response:
        run_id = _run_id(asked)
        known, metrics = self._ledger, asked.get("metrics", [])
        params, tags = asked.get("params", []), asked.get("tags", [])
        self._limits.check_metrics(metrics, known.metric_names(run_id))
        self._limits.check_params([param["key"] for param in params], known.params[run_id])
        self._limits.check_tags(tags, known.tags[run_id])
        reply = await self._upstream.pass_on("POST", "runs/log-batch", {}, body.encode())
        if reply.status_code == 200:
            known.accept(run_id, metrics, params, tags)
        return reply

    async def _log_metric(self, body: str, asked: dict[str, Any]) -> Response:
        run_id = _run_id(asked)
        self._limits.check_metrics([asked], self._ledger.metric_names(run_id))
        reply = await self._upstream.pass_on("POST", "runs/log-metric", {}, body.encode())
        if reply.status_code == 200:
            self._ledger.accept(run_id, metrics=[asked])
        return reply

    async def _log_parameter(self, body: str, asked: dict[str, Any]) -> Response:
        run_id = _run_id(asked)
        self._limits.check_params([asked["key"]], self._ledger.params[run_id])
        reply = await self._upstream.pass_on("POST", "runs/log-parameter", {}, body.encode())
        if reply.status_code == 200:
            self._ledger.accept(run_id, params=[asked])
        return reply

    async def _set_tag(self, body: str, asked: dict[str, Any]) -> Response:
        run_id = _run_id(asked)
        self._limits.check_tags([asked], self._ledger.tags[run_id])
        reply = await self._upstream.pass_on("POST", "runs/set-tag", {}, body.encode())
        if reply.status_code == 200:
            self._ledger.accept(run_id, tags=[asked])
        return reply

    async def _create(self, body: str, asked: dict[str, Any]) -> Response:
        self._limits.check_tags(asked.get("tags", []), ())
        reply = await self._upstream.pass_on("POST", "runs/create", {}, body.encode())
        if reply.status_code == 200:
            run_id = json.loads(bytes(reply.body))["run"]["info"]["run_id"]
            self._ledger.accept(run_id, tags=asked.get("tags", []))
        return reply

    async def log_batch_async(self, request: Request) -> Response:
        """As log-batch; what became of metrics is asked for by a tracking id."""
        body = self._ledger.inward((await request.body()).decode())
        try:
            asked = _read(body)
            reply = await self._log_batch(body, asked)
        except Refused as refusal:
            return refusal.reply
        if reply.status_code != 200 or not asked.get("metrics"):
            return reply
        batch = str(uuid.uuid4())
        self._batches.add(batch)
        return JSONResponse({"batch_tracking_id": batch})

    async def run_data_status(self, request: Request) -> Response:
        """True for every batch that was taken: the MLflow server has stored it by then."""
        batch = request.query_params.get("batch_tracking_id")
        return JSONResponse({"is_complete": batch in self._batches})

    # -- reading -----------------------------------------------------------------------------------

    async def _history(self, request: Request, query: str) -> Response:
        asked = request.query_params
        run_id = self._ledger.inward(asked.get("run_id") or asked.get("run_uuid") or "")
        points = self._ledger.history(run_id, asked.get("metric_key", ""))
        if not points:
            return await self._upstream.pass_on("GET", "metrics/get-history", query, b"")
        size = int(asked.get("max_results", self._limits.history_page))
        self._limits.check_history(size)
        first = int(asked.get("page_token") or 0)
        page: dict[str, Any] = {
            "metrics": [
                {**point._asdict(), "value": json_number(point.value)}
                for point in points[first : first + size]
            ]
        }
        if first + size < len(points):
            page["next_page_token"] = str(first + size)
        return JSONResponse(page)


def _read(body: str) -> dict[str, Any]:
    try:
        asked = json.loads(body, parse_constant=_refuse)
    except ValueError as error:
        raise Refused(f"The request is not JSON: {error}") from error
    if not isinstance(asked, dict):
        raise Refused("The request is no JSON object")
    return asked


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _run_id(asked: dict[str, Any]) -> str:
    return str(asked.get("run_id") or asked.get("run_uuid"))
