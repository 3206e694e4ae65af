"""The whole stand-in: starts its parts, and gives a client process its environment."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil
import trustme
import uvicorn
from starlette.routing import Route
from support import QUIET_MLFLOW, MlflowServer, Point

from tests.azureml.app import Front, Guarded, by_name, routed
from tests.azureml.artifacts import Artifacts, Blobs
from tests.azureml.faults import Faults
from tests.azureml.history import History
from tests.azureml.identity import Identity
from tests.azureml.jobs import Job, Jobs
from tests.azureml.jobs_v2 import JobsV2
from tests.azureml.ledger import Ledger, Seen
from tests.azureml.limits import Limits
from tests.azureml.management import Arm, Login, discovery
from tests.azureml.mlflow_routes import MlflowRoutes
from tests.azureml.place import API_HOST, ARM_HOST, BLOB_HOST, LOGIN, NAMES, Place
from tests.azureml.proxy import Proxy
from tests.azureml.tokens import DATA_PLANE, JOB, Tokens
from tests.azureml.upstream import Upstream

if TYPE_CHECKING:
    from collections import Counter

    from starlette.types import ASGIApp

Entry = Literal["service principal", "managed identity", "azure cli", "notebook", "job", "bare"]
"""Where a client process has its credential; ``bare``: nowhere."""


class StandIn:
    """A workspace on loopback, with everything that a test may look at or turn.

    The servers run in a thread of this process; clients belong in processes of their own, for the
    real packages keep much of what they learn in their classes.
    """

    def __init__(self, root: Path) -> None:
        """Keeps its files, and the homes of its clients, in `root`."""
        self.place = Place()
        self.faults = Faults()
        self.limits = Limits()
        self.ledger = Ledger()
        self.tokens = Tokens(self.place.tenant)
        self._blobs = Blobs()
        self._identity = Identity(self.place, self.tokens)
        self._artifacts = Artifacts(self.place, self.ledger, self.limits, self._blobs)
        self.mlflow = MlflowServer(root)
        self._jobs = Jobs(
            *(self.place, self.ledger, self._blobs, self._artifacts),
            environ=lambda run_id: self.environ("job", run_id),
            root=root / "jobs",
        )
        self._root = root
        self._ca = root / "ca.pem"
        self._homes = count(1)
        self._up = threading.Event()
        self._down: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="workspace-standin", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Return once everything answers."""
        self.mlflow.start()
        self._thread.start()
        self._up.wait(30)
        if self._failure is not None:
            raise RuntimeError("the stand-in did not start") from self._failure

    def stop(self) -> None:
        """End all of it."""
        self.faults.reset()
        self._jobs.end()
        if self._loop is not None and self._down is not None:
            self._loop.call_soon_threadsafe(self._down.set)
        self._thread.join(10)
        self._end_clients()
        self.mlflow.kill()

    def reset(self) -> None:
        """Behave again, and forget what was asked and accepted so far."""
        self.faults.reset()
        self.limits.reset()
        self.tokens.reset()
        self.ledger.reset()
        self.refused.clear()

    # -- what a client needs -----------------------------------------------------------------------

    @property
    def uri(self) -> str:
        """The tracking URI of the workspace."""
        return self.place.uri

    def environ(self, entry: Entry, run_id: str = "") -> dict[str, str]:
        """What to set for a client process; a ``job`` without `run_id` gets a new run.

        Each call gives a home of its own, for the packages keep what they were told in theirs.
        """
        home = self._root / f"home-{next(self._homes)}"
        (home / "azure").mkdir(parents=True)
        proxy = f"http://127.0.0.1:{self._proxy_port}"
        environ = {
            **QUIET_MLFLOW,
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), proxy),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
            "HOME": str(home),
            "AZURE_CONFIG_DIR": str(home / "azure"),
            "REQUESTS_CA_BUNDLE": str(self._ca),
            "AZUREML_CURRENT_CLOUD": "AzureCloud",
        }
        if entry == "service principal":
            environ["AZURE_TENANT_ID"] = self.place.tenant
            environ["AZURE_CLIENT_ID"] = self.place.client_id
            environ["AZURE_CLIENT_SECRET"] = self.place.secret
        elif entry == "managed identity":
            environ.update(self._identity.environ(self._origin))
        elif entry == "azure cli":
            self._identity.install_az(home / "bin", self._origin, self._ca)
            environ["PATH"] = f"{home / 'bin'}:{os.environ['PATH']}"
        elif entry == "notebook":
            folder = home / "notebook"
            environ.update(self._identity.install_notebook(folder, self._origin, self._ca))
        elif entry == "job":
            environ.update(self._environ_of_job(run_id or self.create_run()))
        return environ

    def write_config(self, folder: Path) -> Path:
        """A ``config.json`` of the workspace, as the portal offers it for download."""
        path = folder / "config.json"
        names = {
            "subscription_id": self.place.subscription,
            "resource_group": self.place.resource_group,
            "workspace_name": self.place.name,
        }
        path.write_text(json.dumps(names, indent=4))
        return path

    def create_run(self, experiment: str = "jobs") -> str:
        """A run as the service makes it for a job."""
        client = self.mlflow.client()
        found = client.get_experiment_by_name(experiment)
        made = found.experiment_id if found else client.create_experiment(experiment)
        return str(client.create_run(made).info.run_id)

    # -- what a test looks at ----------------------------------------------------------------------

    @property
    def refused(self) -> list[str]:
        """Names beyond the workspace that a client asked for."""
        return self._proxy.refused

    @property
    def requests(self) -> list[Seen]:
        """Every request since the last reset, in order."""
        return self.ledger.requests

    def count(self, path: str = "", status: int | None = None) -> int:
        """How many requests came whose path contains `path`, and got `status`."""
        return sum(
            path in seen.path and status in (None, seen.status) for seen in self.ledger.requests
        )

    def job(self, run_id: str) -> Job:
        """A submitted script by the id of its run."""
        return self._jobs.all[run_id]

    def points(self, run_id: str) -> list[Point]:
        """Every point that was accepted for a run, doubles included, in order."""
        return list(self.ledger.points[self.ledger.inward(run_id)])

    def artifacts_of(self, run_id: str) -> dict[str, bytes]:
        """By path, the content of every artifact that a run has."""
        return self._artifacts.of(self.ledger.inward(run_id))

    def doubles(self) -> Counter[tuple[str, Point]]:
        """Points that were accepted more than once, by run and point, with how often."""
        return self.ledger.doubles()

    # -- within ------------------------------------------------------------------------------------

    def _environ_of_job(self, run_id: str) -> dict[str, str]:
        """The variables that the service sets for a job."""
        run = self.mlflow.client().get_run(self.ledger.inward(run_id))
        experiment = self.mlflow.client().get_experiment(run.info.experiment_id)
        token = self.tokens.issue(JOB, run=run_id)
        place = self.place
        return {
            "MLFLOW_TRACKING_URI": place.uri,
            "MLFLOW_TRACKING_TOKEN": token,
            "MLFLOW_RUN_ID": run_id,
            "MLFLOW_EXPERIMENT_ID": experiment.experiment_id,
            "MLFLOW_EXPERIMENT_NAME": experiment.name,
            "AZUREML_RUN_ID": run_id,
            "AZUREML_RUN_TOKEN": token,
            "AZUREML_RUN_TOKEN_EXPIRY": str(self.tokens.expiry_of(token)),
            "AZUREML_EXPERIMENT_ID": experiment.experiment_id,
            "AZUREML_WORKSPACE_ID": place.workspace_id,
            "AZUREML_ARM_SUBSCRIPTION": place.subscription,
            "AZUREML_ARM_RESOURCEGROUP": place.resource_group,
            "AZUREML_ARM_WORKSPACE_NAME": place.name,
            "AZUREML_ARM_PROJECT_NAME": experiment.name,
            "AZUREML_SERVICE_ENDPOINT": f"https://{API_HOST}",
            "AZUREML_DISCOVERY_SERVICE_ENDPOINT": f"https://{API_HOST}/discovery",
        }

    def _end_clients(self) -> None:
        """Kill what clients have left behind, which knows a home of ours."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("HOME", "").startswith(str(self._root)):
                    process.kill()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - start() raises it in the test's thread
            self._failure = error
        finally:
            self._up.set()

    async def _serve(self) -> None:
        self._loop, self._down = asyncio.get_running_loop(), asyncio.Event()
        certificate, key = self._certificate()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            self._origin = f"https://127.0.0.1:{port}"
            self._proxy = Proxy(NAMES.__contains__, port)
            self._proxy_port = await self._proxy.start()
            upstream = Upstream(self.mlflow.url, self.place, self.ledger)
            app = self._app(upstream)
            drop, now = self._proxy.drop, self.tokens.now
            front = Front(app, self.ledger, self.faults, drop=drop, now=now)
            server = uvicorn.Server(
                uvicorn.Config(
                    front,
                    ssl_certfile=certificate,
                    ssl_keyfile=key,
                    lifespan="off",
                    proxy_headers=False,
                    date_header=False,
                    log_level="warning",
                    timeout_graceful_shutdown=1,
                )
            )
            serving = asyncio.create_task(server.serve([listening]))
            self._up.set()
            await self._down.wait()
            await self._proxy.stop()
            server.should_exit = True
            await serving
            await upstream.aclose()

    def _app(self, upstream: Upstream) -> ASGIApp:
        place, tokens, ledger = self.place, self.tokens, self.ledger
        arm = Arm(place)
        api = [
            Route("/discovery", discovery),
            *MlflowRoutes(place, upstream, ledger, self.limits).routes,
            *self._artifacts.routes,
            *History(place, upstream, ledger, tokens).routes,
            *self._jobs.routes(upstream),
        ]
        manager = [*arm.routes, *JobsV2(place, self._blobs, self._jobs).routes]
        return by_name(
            {
                LOGIN: routed(Login(place, tokens).routes),
                ARM_HOST: Guarded(routed(manager), tokens, arm.audiences, ("/metadata/",)),
                API_HOST: Guarded(routed(api), tokens, DATA_PLANE, ("/discovery",)),
                BLOB_HOST: routed(self._blobs.routes),
                "127.0.0.1": routed(self._identity.routes),
            }
        )

    def _certificate(self) -> tuple[Path, Path]:
        """Certificate and key for every name; who made it, clients are told by a file."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self._ca))
        leaf = authority.issue_cert("127.0.0.1", "localhost", *NAMES)
        certificate, key = self._root / "server.pem", self._root / "server.key"
        leaf.private_key_pem.write_to_path(str(key))
        for number, blob in enumerate(leaf.cert_chain_pems):
            blob.write_to_path(str(certificate), append=bool(number))
        return certificate, key
