"""Client processes of the stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from support import run_script

if TYPE_CHECKING:
    from tests.azureml.standin import Entry, StandIn

IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
}
"""MLflow's own retries, without the minutes between them."""

SIGN_IN = """
    import os
    from azureml.core import Workspace
    from azureml.core.authentication import ServicePrincipalAuthentication

    auth = ServicePrincipalAuthentication(
        os.environ["AZURE_TENANT_ID"],
        os.environ["AZURE_CLIENT_ID"],
        os.environ["AZURE_CLIENT_SECRET"],
    )
    ws = Workspace.from_config(auth=auth)
"""
"""The workspace of the folder's ``config.json`` as SDK v1 gives it to a service principal."""


def client(
    source: str, workspace: StandIn, tmp_path: Path, entry: Entry = "service principal", **env: str
) -> list[str]:
    """The lines that a client process prints."""
    done = run_script(source, cwd=tmp_path, env={**workspace.environ(entry), **env}, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.splitlines()
