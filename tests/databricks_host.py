"""The REST host of a Databricks workspace, in front of a real MLflow server."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from faults import FaultyProxy, Reply, Request

_JSON = (("Content-Type", "application/json"),)
_TRACKING = "/api/2.0/mlflow/"
_STORAGE = "/storage/"
_NO_EXPERIMENT = (
    "No experiment was found. If using the Python fluent API, you can set an active experiment "
    "under which to create runs by calling mlflow.set_experiment()."
)
_BUSY = '{"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "Too many requests."}'
_NO_PATH = "an experiment name must be an absolute path within the Databricks workspace"


class Databricks(FaultyProxy):
    """What MLflow's own client asks of Databricks, with the faults of `FaultyProxy`.

    It wants a token, has experiments at absolute paths only and none by default, and keeps files
    behind signed addresses. What it does not have of the API is a 404 with an error code.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.token = f"dapi{secrets.token_hex(16)}"
        self.is_busy = False
        """Whether its API answers 429."""
        self.files: dict[str, bytes] = {}
        """By run and path, what was uploaded."""
        self._signature = secrets.token_hex(8)

    @property
    def environ(self) -> dict[str, str]:
        """What a client process needs."""
        return {
            "MLFLOW_TRACKING_URI": "databricks",
            "DATABRICKS_HOST": self.url,
            "DATABRICKS_TOKEN": self.token,
            "NO_PROXY": "127.0.0.1",
        }

    def forward(self, request: Request) -> Reply:
        """The reply to a request that no fault meets."""
        path = urlsplit(request.path).path
        if path == "/.well-known/databricks-config":
            return _reply(200, oidc_endpoint=f"{self.url}/oidc", workspace_id="1")
        if path.startswith(_STORAGE):
            return self._store(request, path)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _reply(403, error_code="403", message="Invalid access token.")
        if not path.startswith(_TRACKING):
            return _refusal(404, "ENDPOINT_NOT_FOUND", f"No API found for '{path}'")
        if self.is_busy:
            return Reply(429, _BUSY.encode(), (("Retry-After", "1"), *_JSON))
        return self._tracking(request, path.removeprefix(_TRACKING))

    def _tracking(self, request: Request, endpoint: str) -> Reply:
        asked = json.loads(request.body or b"{}")
        if endpoint == "artifacts/credentials-for-write":
            return self._addresses(asked)
        query = parse_qs(urlsplit(request.path).query)
        name = asked.get("name", query.get("experiment_name", ["/"])[0])
        if endpoint == "experiments/get-by-name" and not name.startswith("/"):
            return _refusal(404, "RESOURCE_DOES_NOT_EXIST", f"Node {name} does not exist.")
        if endpoint == "experiments/create" and not name.startswith("/"):
            return _refusal(400, "INVALID_PARAMETER_VALUE", f"{name!r}: {_NO_PATH}")
        if endpoint == "runs/create" and asked.get("experiment_id", "0") == "0":
            return _refusal(404, "RESOURCE_DOES_NOT_EXIST", _NO_EXPERIMENT)
        reply = super().forward(request)
        answer = json.loads(reply.body)
        _at_home(answer)
        return replace(reply, body=json.dumps(answer).encode())

    def _addresses(self, asked: dict[str, Any]) -> Reply:
        run = asked["run_id"]
        infos = [
            {
                "run_id": run,
                "path": path,
                "signed_uri": f"{self.url}{_STORAGE}{run}/{path}?sig={self._signature}",
                "type": "AWS_PRESIGNED_URL",
            }
            for path in asked["path"]
        ]
        return _reply(200, credential_infos=infos)

    def _store(self, request: Request, path: str) -> Reply:
        if f"sig={self._signature}" not in request.path or "Authorization" in request.headers:
            return Reply(403, b"")
        self.files[unquote(path.removeprefix(_STORAGE))] = request.body
        return Reply(200, b"")


def _at_home(answer: Any) -> None:
    """Files of runs are in the workspace, not on the MLflow server."""
    if isinstance(answer, dict):
        if "artifact_uri" in answer:
            place = f"{answer['experiment_id']}/{answer['run_id']}/artifacts"
            answer["artifact_uri"] = f"dbfs:/databricks/mlflow-tracking/{place}"
        answer = [*answer.values()]
    if isinstance(answer, list):
        for item in answer:
            _at_home(item)


def _reply(status: int, **content: object) -> Reply:
    return Reply(status, json.dumps(content).encode(), _JSON)


def _refusal(status: int, code: str, message: str) -> Reply:
    return _reply(status, error_code=code, message=message)
