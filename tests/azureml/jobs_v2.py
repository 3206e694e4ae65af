"""What SDK v2 asks the resource manager for on its way to a command job."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

import yaml
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.azureml.jobs import COMPUTE, Jobs, Submission, pip_packages
from tests.azureml.place import REGION, Place

if TYPE_CHECKING:
    from starlette.requests import Request

    from tests.azureml.artifacts import Blobs


class JobsV2:
    """Code, environments and jobs below the workspace in ARM."""

    def __init__(self, place: Place, blobs: Blobs, jobs: Jobs) -> None:
        self._place = place
        self._blobs = blobs
        self._jobs = jobs
        self._assets: dict[str, dict[str, Any]] = {}
        self._submitted: dict[str, dict[str, Any]] = {}
        code = f"{place.scope}/codes/{{name}}/versions"
        environment = f"{place.scope}/environments/{{name}}/versions/{{version}}"
        self.routes = [
            Route(code, self.no_code),
            Route(f"{code}/{{version}}/startPendingUpload", self.announce, methods=["POST"]),
            Route(f"{code}/{{version}}", self.store, methods=["PUT"]),
            Route(f"{code}/{{version}}", self.stored),
            Route(environment, self.store, methods=["PUT"]),
            Route(environment, self.stored),
            Route(f"{place.scope}/jobs/{{name}}", self.submit, methods=["PUT"]),
            Route(f"{place.scope}/jobs/{{name}}", self.job),
        ]

    # -- assets ------------------------------------------------------------------------------------

    async def no_code(self, request: Request) -> Response:
        """None that is alike: every client uploads all its files."""
        return JSONResponse({"value": [], "nextLink": None})

    async def announce(self, request: Request) -> Response:
        """A container of its own for a version of code."""
        container = str(uuid.uuid4())
        address = self._blobs.container_address(container)
        return JSONResponse(
            {
                "blobReferenceForConsumption": {
                    "blobUri": address.partition("?")[0],
                    "storageAccountArmId": "",
                    "credential": {"credentialType": "SAS", "sasUri": address},
                },
                "pendingUploadId": container,
                "pendingUploadType": "TemporaryBlobReference",
            }
        )

    async def store(self, request: Request) -> Response:
        """A new version of code or of an environment."""
        self._assets[_id(request)] = await request.json()
        return await self.stored(request)

    async def stored(self, request: Request) -> Response:
        """A version that was stored."""
        name = _id(request)
        return _resource(name, self._assets[name]) if name in self._assets else _absent(name)

    # -- jobs --------------------------------------------------------------------------------------

    async def submit(self, request: Request) -> Response:
        """Run a command in a folder with its code, under the name that the client made."""
        asked = (await request.json())["properties"]
        name = request.path_params["name"]
        if unknown := self._unknown(asked):
            return _absent(unknown)
        place = self._assets[asked["codeId"]]["properties"]["codeUri"]
        prefix = f"{self._blobs.path_of(place)}/"
        environment = self._assets[asked["environmentId"]]
        files = {
            blob.removeprefix(prefix): blob
            for blob in self._blobs.contents
            if blob.startswith(prefix)
        }
        await self._jobs.launch(
            Submission(
                name,
                experiment=asked["experimentName"],
                files=files,
                command=["bash", "-c", _filled(asked["command"], asked.get("inputs") or {})],
                variables=asked.get("environmentVariables") or {},
                packages=pip_packages(yaml.safe_load(environment["properties"]["condaFile"])),
                name=asked.get("displayName") or "",
            )
        )
        self._submitted[name] = asked
        return await self.job(request)

    async def job(self, request: Request) -> Response:
        """A job that was submitted, as it stands."""
        name = request.path_params["name"]
        if name not in self._submitted:
            return _absent(_id(request))
        studio = f"https://ml.azure.com/runs/{name}?wsid={self._place.scope}"
        now = {
            "status": self._jobs.all[name].status,
            "services": {"Studio": {"jobServiceType": "Studio", "endpoint": studio}},
        }
        return _resource(_id(request), {"properties": {**self._submitted[name], **now}})

    def _unknown(self, asked: dict[str, Any]) -> str:
        """The first thing that a job names and that is not there."""
        there = {*self._assets, f"{self._place.scope}/computes/{COMPUTE}"}
        named = (asked["codeId"], asked["environmentId"], asked["computeId"])
        return next((name for name in named if name not in there), "")


def _filled(command: str, inputs: dict[str, Any]) -> str:
    """A command line with the values of its literal inputs."""
    return re.sub(r"\$\{\{inputs\.(\w+)\}\}", lambda found: str(inputs[found[1]]["value"]), command)


def _id(request: Request) -> str:
    return str(request.url.path)


def _resource(name: str, content: dict[str, Any]) -> Response:
    kind = "/".join(part for part in name.split("/")[-4::2] if part)
    return JSONResponse(
        {
            "id": name,
            "name": name.rpartition("/")[2],
            "type": f"Microsoft.MachineLearningServices/workspaces/{kind}",
            "location": REGION,
            "systemData": {"createdAt": "2026-01-01T00:00:00Z", "createdByType": "Application"},
            **content,
        }
    )


def _absent(name: str) -> Response:
    return JSONResponse({"error": {"code": "UserError", "message": f"{name} not found."}}, 404)
