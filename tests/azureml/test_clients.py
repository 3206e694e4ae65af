"""The real, unpatched packages at work in the stand-in, each scenario in a fresh process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import run_script

from tests.azureml.clients import SIGN_IN, client

if TYPE_CHECKING:
    from tests.azureml.standin import Entry, StandIn

LOG = """
    import mlflow
    with mlflow.start_run() as run:
        mlflow.log_metric("epoch_loss", 0.5, step=3)
        mlflow.log_metrics({"acc": 0.25, "f1": 0.75}, step=3)
        mlflow.log_params({"lr": "0.1", "epochs": "2"})
        mlflow.set_tag("team", "vision")
        mlflow.log_text("hello", "notes/a.txt")
    print(run.info.run_id)
"""


def test_a_service_principal_logs_and_reads(workspace: StandIn, tmp_path: Path) -> None:
    """Sign-in, workspace, tracking URI, values, an artifact, and back through MLflow and SDK v1."""
    workspace.write_config(tmp_path)
    read = """
    from azureml.core import Experiment, Run
    print(ws.get_details()["name"])
    client = mlflow.MlflowClient()
    found = client.get_run(run.info.run_id)
    print(found.data.metrics["acc"], found.data.params["lr"], found.data.tags["team"])
    print([file.path for file in client.list_artifacts(run.info.run_id)])
    print(mlflow.artifacts.load_text(found.info.artifact_uri + "/notes/a.txt"))
    print(Run(Experiment(ws, "vision"), run.info.run_id).get_metrics())
    """
    track = """
    import mlflow
    mlflow.set_tracking_uri(ws.get_mlflow_tracking_uri())
    mlflow.set_experiment("vision")
    """
    lines = client(SIGN_IN + track + LOG + read, workspace, tmp_path)
    run_id = next(line for line in lines if len(line) == 32)
    assert lines[-5:] == [
        workspace.place.name,
        "0.25 0.1 vision",
        "['notes']",
        "hello",
        "{'epoch_loss': 0.5, 'acc': 0.25, 'f1': 0.75}",
    ]
    assert {(p.key, p.step, p.value) for p in workspace.points(run_id)} == {
        ("epoch_loss", 3, 0.5),
        ("acc", 3, 0.25),
        ("f1", 3, 0.75),
    }
    assert not workspace.doubles()
    assert workspace.artifacts_of(run_id) == {"notes/a.txt": b"hello"}


@pytest.mark.parametrize(
    ("entry", "endpoint"),
    [
        ("service principal", "/oauth2/v2.0/token"),
        ("managed identity", "/msi/token"),
        ("azure cli", "/msi/token"),
    ],
)
def test_the_default_chain_finds_a_credential(
    workspace: StandIn, tmp_path: Path, entry: Entry, endpoint: str
) -> None:
    """The plugin signs in by itself with what the machine has."""
    chain = {"AZURE_TOKEN_CREDENTIALS": "dev"} if entry == "azure cli" else {}
    uri = workspace.uri
    lines = client(LOG, workspace, tmp_path, entry, MLFLOW_TRACKING_URI=uri, **chain)
    assert len(workspace.points(next(line for line in lines if len(line) == 32))) == 3
    assert workspace.count(endpoint, 200) >= 1


def test_a_job_logs_to_the_run_that_it_was_given(workspace: StandIn, tmp_path: Path) -> None:
    """The token of the environment is enough, and the status of the run is not the client's."""
    env = workspace.environ("job")
    done = run_script(LOG, cwd=tmp_path, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    run_id = env["MLFLOW_RUN_ID"]
    assert run_id in done.stdout
    assert {p.key for p in workspace.points(run_id)} == {"epoch_loss", "acc", "f1"}
    assert workspace.mlflow.client().get_run(run_id).info.status == "RUNNING"
    assert workspace.count("/oauth2/") == 0


def test_a_job_renews_its_token(workspace: StandIn, tmp_path: Path) -> None:
    """The plugin asks for the next token when the one it has is about to expire."""
    workspace.tokens.lifetime = 60
    env = workspace.environ("job")
    done = run_script(LOG, cwd=tmp_path, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    assert workspace.count(f"/runs/{env['MLFLOW_RUN_ID']}/token", 200) == 1


def test_sdk_v2_finds_the_workspace(workspace: StandIn, tmp_path: Path) -> None:
    """An ``MLClient`` gives the tracking URI, which the plugin's default chain opens."""
    workspace.write_config(tmp_path)
    find = """
    import mlflow
    from azure.ai.ml import MLClient
    from azure.identity import EnvironmentCredential

    ml = MLClient.from_config(credential=EnvironmentCredential())
    mlflow.set_tracking_uri(ml.workspaces.get(ml.workspace_name).mlflow_tracking_uri)
    """
    lines = client(find + LOG, workspace, tmp_path)
    assert len(workspace.points(next(line for line in lines if len(line) == 32))) == 3
