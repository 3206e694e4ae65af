"""Notebooks of Azure Databricks: whose credential, the cluster's script, MLflow's autolog."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from support import run_script

from tests.azureml.notebook import START

if TYPE_CHECKING:
    from tests.azureml.standin import StandIn

OBJECT = """
import os
from azureml.core import Workspace

ws = Workspace.get(
    os.environ["NAME"],
    subscription_id=os.environ["SUBSCRIPTION"],
    resource_group=os.environ["GROUP"],
)
import autolog
autolog.enable(workspace=ws)
"""

SLOWLY = """
import time
with autolog.run("slow") as run:
    for step in range(60):
        autolog.log_metric("loss", step / 2, step=step)
        time.sleep(0.1)
receipt = autolog.flush(60)
assert receipt.complete, receipt
import azureml.mlflow
import mlflow
print(azureml.mlflow.get_portal_url(mlflow.get_run(run.run_id)))
print(run.run_id)
"""

PLATFORM = """
import mlflow
mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
"""
"""What a cluster does by itself before the first cell."""

TRAIN = """
import autolog
autolog.enable()
import numpy as np
from sklearn.neural_network import MLPClassifier

x = np.random.default_rng(0).random((60, 3))
MLPClassifier(max_iter=3).fit(x, x[:, 0] > 0.5)
receipt = autolog.flush(60)
assert receipt.complete, receipt
print(autolog.last_run().run_id)
"""


def cells(source: str, workspace: StandIn, folder: Path, **env: str) -> list[str]:
    """The lines that a notebook prints; nothing went wrong within autolog."""
    place = workspace.place
    names = {"NAME": place.name, "SUBSCRIPTION": place.subscription, "GROUP": place.resource_group}
    environ = {**workspace.environ("notebook"), **names, **env}
    done = run_script(START + source, cwd=folder, env=environ, timeout=150)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "internal error" not in done.stderr, done.stderr
    return done.stdout.splitlines()


def test_a_workspace_in_a_notebook(workspace: StandIn, tmp_path: Path) -> None:
    """`Workspace.get` brings the person's credential, fresh beyond its expiry; the portal knows."""
    workspace.tokens.lifetime = 4
    page, run_id = cells(OBJECT + SLOWLY, workspace, tmp_path)[-2:]
    scope = workspace.place.scope
    assert page == f"https://ml.azure.com{scope}/experiments/Default/runs/{run_id}"
    assert [p.step for p in workspace.points(run_id)] == list(range(60))
    assert not workspace.doubles()
    assert workspace.count("log-batch", 401) == 0
    assert workspace.count("/oauth2/") == 0
    tags = workspace.mlflow.client().get_run(run_id).data.tags
    assert tags["mlflow.databricks.notebookPath"] == "/Users/someone@example.com/train"


def test_a_cluster_and_its_notebooks(workspace: StandIn, tmp_path: Path) -> None:
    """The script that is printed installs and aims; beside the cluster's autolog there is one run.

    The notebook's own credential serves, each value is stored once, and ours adds `epoch_loss`.
    """
    environ = node(workspace, tmp_path)
    assert environ["MLFLOW_TRACKING_URI"] == workspace.uri
    (run_id,) = cells(PLATFORM + TRAIN, workspace, tmp_path / "databricks" / "driver", **environ)
    found = workspace.mlflow.client().get_run(run_id)
    experiment = workspace.mlflow.client().get_experiment(found.info.experiment_id)
    assert experiment.name == environ["MLFLOW_EXPERIMENT_NAME"] == "it's ours"
    assert len(workspace.mlflow.client().search_runs([experiment.experiment_id])) == 1
    points = workspace.points(run_id)
    assert [p.step for p in points if p.key == "epoch_loss"] == [0, 1, 2]
    assert len([p for p in points if p.key == "training_accuracy_score"]) == 1
    assert not workspace.doubles()
    assert found.data.params["max_iter"] == "3"
    assert workspace.count("/oauth2/") == 0


def test_a_notebook_with_a_config_alone(workspace: StandIn, tmp_path: Path) -> None:
    """The notebook's credential is asked under ``strict``, and finds the region for MLflow too."""
    workspace.write_config(tmp_path)
    source = """
import autolog
autolog.enable(workspace=autolog.workspace.from_config(), strict=True)
with autolog.run("config") as run:
    autolog.log_metric("loss", 0.5)
import mlflow
assert mlflow.get_run(run.run_id).data.metrics == {"loss": 0.5}
print(run.run_id)
"""
    run_id = cells(source, workspace, tmp_path)[-1]
    assert [point.value for point in workspace.points(run_id)] == [0.5]


def node(workspace: StandIn, folder: Path) -> dict[str, str]:
    """Run the cluster's script as a node does that starts; what its driver then has set."""
    root = folder / "databricks"
    for part in ("driver", "python/bin", "spark/conf"):
        (root / part).mkdir(parents=True)
    pip = root / "python" / "bin" / "pip"
    pip.write_text(f'#!/bin/bash\necho "$@" >> {root}/pip.log\n')
    pip.chmod(0o755)
    printed = subprocess.run(
        [
            *(sys.executable, "-m", "autolog", "databricks-init", "--to", workspace.uri),
            *("--experiment", "it's ours", "--package", "/Volumes/main/autolog it.whl[azureml]"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    script = printed.replace("/databricks", str(root))
    subprocess.run(["bash", "-c", script], check=True, timeout=20)
    assert (root / "pip.log").read_text() == "install /Volumes/main/autolog it.whl[azureml]\n"
    config = workspace.write_config(folder).read_text()
    assert "".join((root / "config.json").read_text().split()) == "".join(config.split())
    shown = subprocess.run(
        ["bash", "-c", f". {root}/spark/conf/spark-env.sh && env"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = (line.partition("=") for line in shown.splitlines())
    return {name: value for name, _, value in lines if name.startswith("MLFLOW_")}
