"""Submitted scripts: snapshots of folders, a compute, and the processes that the service starts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from support import free_port

from tests.azureml.faults import problem
from tests.azureml.place import REGION, Place

if TYPE_CHECKING:
    from starlette.requests import Request

    from tests.azureml.artifacts import Artifacts, Blobs
    from tests.azureml.ledger import Ledger
    from tests.azureml.upstream import Upstream

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


ONE_PROCESS: Mapping[str, Mapping[str, str]] = {"std_log.txt": {}}


@dataclass(frozen=True)
class Submission:
    """What a client wants to be run."""

    alias: str
    """The run's id, as the client made it."""
    experiment: str
    files: Mapping[str, str]
    """By name, the blob of each file."""
    command: Sequence[str]
    variables: Mapping[str, str]
    packages: Sequence[str] = ()
    """What pip is to install."""
    ranks: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: ONE_PROCESS)
    """By log file, the variables of each process."""
    name: str = ""


class Job:
    """A submitted script at work."""

    def __init__(self, asked: Submission, folder: Path) -> None:
        self.run_id = asked.alias
        """As the client made it."""
        self.packages = asked.packages
        """What pip is to install; nothing is, for scripts run with what the tests have."""
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
        configuration = asked["Configuration"]
        await self.launch(
            Submission(
                alias,
                experiment=request.path_params["experiment"],
                files=self._snapshots[asked["SnapshotId"]],
                command=[
                    sys.executable,
                    configuration["script"],
                    *configuration.get("arguments", []),
                ],
                variables=configuration.get("environmentVariables") or {},
                packages=pip_packages(configuration["environment"]["python"]["condaDependencies"]),
                ranks=_ranks(configuration),
            )
        )
        return JSONResponse({"runId": alias})

    async def launch(self, asked: Submission) -> None:
        """Open the run of a job, and start its processes in a folder with its files."""
        created = await self._upstream.call(
            "POST",
            "runs/create",
            experiment_id=await self._experiment_id(asked.experiment),
            run_name=asked.name or asked.alias,
            start_time=int(time.time() * 1000),
        )
        self._ledger.name(created["run"]["info"]["run_id"], asked.alias)
        self.all[asked.alias] = await self._started(asked)

    async def _experiment_id(self, name: str) -> str:
        try:
            found = await self._upstream.call(
                "GET", "experiments/get-by-name", experiment_name=name
            )
        except LookupError:
            made = await self._upstream.call("POST", "experiments/create", name=name)
            return str(made["experiment_id"])
        return str(found["experiment"]["experiment_id"])

    async def _started(self, asked: Submission) -> Job:
        job = Job(asked, self._root / asked.alias)
        for name, blob in asked.files.items():
            path = job.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._blobs.contents[blob])
        (job.folder / "user_logs").mkdir(parents=True)
        (job.folder / "outputs").mkdir(exist_ok=True)
        environ = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **asked.variables,
            **await asyncio.to_thread(self._environ, asked.alias),
        }
        for log, rank in asked.ranks.items():
            with (job.folder / "user_logs" / log).open("wb") as output:
                process = await asyncio.create_subprocess_exec(
                    *asked.command,
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


def pip_packages(conda: Mapping[str, Any]) -> list[str]:
    """What the conda specification of an environment has pip install."""
    groups = [item["pip"] for item in conda["dependencies"] if isinstance(item, dict)]
    return [package for group in groups for package in group]


def _ranks(configuration: Mapping[str, Any]) -> Mapping[str, Mapping[str, str]]:
    """By log file, the variables of each process of a job."""
    if configuration.get("framework") != "PyTorch":
        return ONE_PROCESS
    size = configuration["pytorch"].get("processCount") or 1
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    return {
        f"std_log_process_{rank}.txt": {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        for rank in range(size)
    }
