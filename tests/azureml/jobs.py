"""Submitted scripts: snapshots of folders, a compute, and the processes that the service starts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from support import free_port

from tests.azureml.artifacts import Artifacts, Blobs
from tests.azureml.faults import problem
from tests.azureml.ledger import Ledger
from tests.azureml.place import REGION, Place
from tests.azureml.upstream import Upstream

if TYPE_CHECKING:
    from starlette.requests import Request

COMPUTE = "cpu-cluster"
_CONTAINER = "snapshotzips"
_EMPTY = {
    "id": str(uuid.UUID(int=0)),
    "root": {
        "name": "",
        "type": "Directory",
        "hash": "",
        "timestamp": "2026-01-01T00:00:00",
        "children": {},
    },
}


class Job:
    """A submitted script at work."""

    def __init__(self, run_id: str, folder: Path) -> None:
        self.run_id = run_id
        """As the client made it."""
        self.folder = folder
        self.processes: list[asyncio.subprocess.Process] = []
        """One a rank."""
        self.status = "Running"

    @property
    def is_over(self) -> bool:
        """True once the service has set the run's status and kept its files."""
        return self.status != "Running"

    @property
    def output(self) -> str:
        """What the script has printed so far, of all ranks."""
        return "".join(log.read_text() for log in sorted(self.folder.glob("user_logs/*.txt")))

    def kill(self) -> None:
        """SIGKILL to the script, as when its node goes away."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class Jobs:
    """The content, execution and compute services of SDK v1."""

    def __init__(
        self,
        place: Place,
        ledger: Ledger,
        blobs: Blobs,
        artifacts: Artifacts,
        *,
        environ: Callable[[str], Mapping[str, str]],
        root: Path,
    ) -> None:
        """`environ` gives the variables of a job by its run; folders of jobs are made in `root`."""
        self.all: dict[str, Job] = {}
        self._place = place
        self._ledger = ledger
        self._blobs = blobs
        self._artifacts = artifacts
        self._environ = environ
        self._root = root
        self._snapshots: dict[str, dict[str, str]] = {}
        """By id, the blob of each file."""
        self._watchers: set[asyncio.Task[None]] = set()

    def routes(self, upstream: Upstream) -> list[Route]:
        """The routes of the three services."""
        self._upstream = upstream
        scope = self._place.scope
        run = f"/execution/v1.0{scope}/experiments/{{experiment}}/snapshotrun"
        content = f"/content/v2.0{scope}/snapshots"
        return [
            Route(f"/content/v1.0{scope}/snapshots/latest/metadata", self.latest_snapshot),
            Route(f"{content}/getblob", self.addresses, methods=["POST"]),
            Route(f"{content}/{{id}}", self.create_snapshot, methods=["POST"]),
            Route(f"/rp/workspaces{scope}/computes", self.computes),
            Route(f"/rp/workspaces{scope}/computes/{{name}}", self.compute),
            Route(run, self.start, methods=["POST"]),
        ]

    def end(self) -> None:
        """Kill what still runs."""
        for job in self.all.values():
            job.kill()

    # -- snapshots ---------------------------------------------------------------------------------

    async def latest_snapshot(self, request: Request) -> Response:
        """An empty one: every client uploads all its files."""
        return JSONResponse(_EMPTY)

    async def addresses(self, request: Request) -> Response:
        """Where to put each file."""
        names = (await request.json())["FileNames"]
        prefix = f"{_CONTAINER}/{uuid.uuid4()}"
        nodes = [
            {"fullName": name, "blobUri": self._blobs.address(f"{prefix}/{name}")} for name in names
        ]
        return JSONResponse({"fileNodes": nodes})

    async def create_snapshot(self, request: Request) -> Response:
        """A snapshot of the files that were put, on top of those of its parent."""
        asked = await request.json()
        nodes = asked["FileRevisionList"]["FileNodes"]
        put = {node["FullName"]: self._blobs.path_of(node["BlobUri"]) for node in nodes}
        parent = self._snapshots.get(asked.get("ParentSnapshotId") or "", {})
        snapshot = request.path_params["id"]
        self._snapshots[snapshot] = {**parent, **put}
        return JSONResponse({"id": snapshot})

    # -- compute -----------------------------------------------------------------------------------

    async def computes(self, request: Request) -> Response:
        """The one cluster."""
        return JSONResponse({"value": [self._cluster()]})

    async def compute(self, request: Request) -> Response:
        """A cluster by its name."""
        if request.path_params["name"] != COMPUTE:
            return problem(404, "Compute not found.")
        return JSONResponse(self._cluster())

    def _cluster(self) -> dict[str, object]:
        return {
            "id": f"{self._place.scope}/computes/{COMPUTE}",
            "name": COMPUTE,
            "type": "Microsoft.MachineLearningServices/workspaces/computes",
            "location": REGION,
            "tags": {},
            "properties": {
                "computeType": "AmlCompute",
                "computeLocation": REGION,
                "description": None,
                "provisioningState": "Succeeded",
                "provisioningErrors": None,
                "resourceId": None,
                "isAttachedCompute": False,
                "properties": {
                    "vmSize": "STANDARD_D2_V2",
                    "vmPriority": "Dedicated",
                    "scaleSettings": {
                        "minNodeCount": 0,
                        "maxNodeCount": 2,
                        "nodeIdleTimeBeforeScaleDown": "PT120S",
                    },
                    "allocationState": "Steady",
                    "currentNodeCount": 0,
                },
            },
        }

    # -- runs --------------------------------------------------------------------------------------

    async def start(self, request: Request) -> Response:
        """Start a snapshot's script under the run id that the client made."""
        asked = await request.json()
        alias = request.query_params["runId"]
        found = await self._upstream.call(
            "GET", "experiments/get-by-name", experiment_name=request.path_params["experiment"]
        )
        created = await self._upstream.call(
            "POST",
            "runs/create",
            experiment_id=found["experiment"]["experiment_id"],
            run_name=alias,
            start_time=int(time.time() * 1000),
        )
        self._ledger.name(created["run"]["info"]["run_id"], alias)
        self.all[alias] = await self._started(alias, asked)
        return JSONResponse({"runId": alias})

    async def _started(self, alias: str, asked: Mapping[str, Any]) -> Job:
        configuration = asked["Configuration"]
        job = Job(alias, self._root / alias)
        for name, blob in self._snapshots[asked["SnapshotId"]].items():
            path = job.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._blobs.contents[blob])
        (job.folder / "user_logs").mkdir()
        (job.folder / "outputs").mkdir(exist_ok=True)
        environ = {
            "PATH": os.environ["PATH"],
            **(configuration.get("environmentVariables") or {}),
            **await asyncio.to_thread(self._environ, alias),
        }
        command = [sys.executable, configuration["script"], *configuration.get("arguments", [])]
        for log, rank in _ranks(configuration).items():
            with (job.folder / "user_logs" / log).open("wb") as output:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    cwd=job.folder,
                    env={**environ, **rank},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            job.processes.append(process)
        watcher = asyncio.create_task(self._watched(job))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        return job

    async def _watched(self, job: Job) -> None:
        """When the script is over: keep its outputs and logs, then set the status."""
        codes = [await process.wait() for process in job.processes]
        run_id = self._ledger.inward(job.run_id)
        for folder in ("outputs", "logs", "user_logs"):
            for path in sorted((job.folder / folder).rglob("*")):
                if path.is_file():
                    name = path.relative_to(job.folder).as_posix()
                    self._artifacts.keep(run_id, name, path.read_bytes())
        await self._upstream.call(
            "POST",
            "runs/update",
            run_id=run_id,
            status="FAILED" if any(codes) else "FINISHED",
            end_time=int(time.time() * 1000),
        )
        job.status = "Failed" if any(codes) else "Completed"


def _ranks(configuration: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """By log file, the variables of each process of a job."""
    if configuration.get("framework") != "PyTorch":
        return {"std_log.txt": {}}
    size = configuration["pytorch"].get("processCount") or 1
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    return {
        f"std_log_process_{rank}.txt": {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        for rank in range(size)
    }
