"""An ``MLClient`` of SDK v2 whose credential nobody but the program has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import run_script

if TYPE_CHECKING:
    from tests.azureml.standin import StandIn

CLIENT = """
import os
from azure.ai.ml import MLClient
from azure.identity import ClientSecretCredential

credential = ClientSecretCredential(
    os.environ.pop("AZURE_TENANT_ID"), os.environ.pop("AZURE_CLIENT_ID"),
    os.environ.pop("AZURE_CLIENT_SECRET"),
)
client = MLClient.from_config(credential)
"""
FORMS = {
    "object": "import autolog\nautolog.enable(workspace=client)",
    "page": """
import mlflow, autolog
mlflow.set_tracking_uri(client.workspaces.get(client.workspace_name).mlflow_tracking_uri)
autolog.enable()
""",
}
WORK = """
import time
import mlflow
mlflow.set_experiment("v2")
with mlflow.start_run() as active:
    for step in range(60):
        mlflow.log_metric("loss", step / 2, step=step)
        time.sleep(0.1)
    mlflow.log_text("hello", "notes/a.txt")
receipt = autolog.flush(60)
assert receipt.complete, receipt
print(autolog.last_run().run_id)
"""


@pytest.mark.parametrize("form", FORMS)
def test_an_ml_client(form: str, workspace: StandIn, tmp_path: Path) -> None:
    """MLflow's calls go on beyond the expiry of its tokens, whichever way it was named."""
    workspace.write_config(tmp_path)
    workspace.tokens.lifetime = 4
    environ = workspace.environ("service principal")
    done = run_script(CLIENT + FORMS[form] + WORK, cwd=tmp_path, env=environ, timeout=150)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "internal error" not in done.stderr, done.stderr
    run_id = done.stdout.splitlines()[-1]
    assert [p.step for p in workspace.points(run_id)] == list(range(60))
    assert not workspace.doubles()
    assert workspace.count("log-batch", 401) == 0
    assert workspace.artifacts_of(run_id) == {"notes/a.txt": b"hello"}
    assert workspace.mlflow.client().get_run(run_id).info.status == "FINISHED"


def test_a_client_without_a_workspace(workspace: StandIn, tmp_path: Path) -> None:
    """One of a resource group alone is an error at the user's line, which says what it lacks."""
    source = """
import autolog
from azure.ai.ml import MLClient
from azure.identity import EnvironmentCredential
try:
    autolog.enable(workspace=MLClient(EnvironmentCredential(), "subscription", "group"))
except ValueError as error:
    print(error)
"""
    done = run_script(source, cwd=tmp_path, env=workspace.environ("service principal"))
    assert done.returncode == 0, done.stderr
    assert "group group and name None" in done.stdout
    assert "with workspace_name=" in done.stdout
