"""Submit ``train.py`` to a cluster with SDK v1, wait, and read its metrics.

Needs a ``config.json`` of the workspace here or above, and a compute cluster.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from azureml.core import Environment, Experiment, ScriptRunConfig, Workspace
from azureml.core.conda_dependencies import CondaDependencies

import autolog


def main() -> None:
    """Submit, and show what became of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compute", default="cpu-cluster", help="name of the cluster")
    parser.add_argument("--epochs", default="5")
    given = parser.parse_args()

    environment = Environment("autolog-example")
    environment.python.conda_dependencies = CondaDependencies.create(
        pip_packages=[*autolog.workspace.conda_dependencies(), "scikit-learn"]
    )
    config = ScriptRunConfig(
        source_directory=str(Path(__file__).parent),
        script="train.py",
        arguments=["--epochs", given.epochs],
        compute_target=given.compute,
        environment=environment,
    )
    run = Experiment(Workspace.from_config(), "autolog-example").submit(config)
    print(f"submitted: {run.get_portal_url()}")
    run.wait_for_completion()
    metrics = run.get_metrics()
    print(f"{run.id} {run.get_status()}: epoch_loss {metrics['epoch_loss']}")


if __name__ == "__main__":
    main()
