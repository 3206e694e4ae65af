"""Submit ``train.py`` to a cluster as a command job of SDK v2, wait, and read its metrics.

Needs a ``config.json`` of the workspace here or above, and a compute cluster.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mlflow
from azure.ai.ml import MLClient, command
from azure.ai.ml.entities import Environment
from azure.identity import DefaultAzureCredential

import autolog


def main() -> None:
    """Submit, and show what became of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compute", default="cpu-cluster", help="name of the cluster")
    parser.add_argument("--epochs", type=int, default=5)
    given = parser.parse_args()

    packages = [*autolog.workspace.conda_dependencies(), "scikit-learn"]
    environment = Environment(
        name="autolog-example",
        image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04",
        conda_file={"dependencies": ["python=3.11", "pip", {"pip": packages}]},
    )
    client = MLClient.from_config(credential=DefaultAzureCredential())
    job = client.jobs.create_or_update(
        command(
            code=str(Path(__file__).parent),
            command="python train.py --epochs ${{inputs.epochs}}",
            inputs={"epochs": given.epochs},
            environment=environment,
            compute=given.compute,
            experiment_name="autolog-example",
        )
    )
    print(f"submitted: {job.studio_url}")
    client.jobs.stream(job.name)
    workspace = client.workspaces.get(client.workspace_name)
    mlflow.set_tracking_uri(workspace.mlflow_tracking_uri)
    metrics = mlflow.get_run(job.name).data.metrics
    print(f"{job.name}: last epoch_loss {metrics['epoch_loss']}")


if __name__ == "__main__":
    main()
