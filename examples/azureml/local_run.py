"""A run of this machine in a workspace: MLflow's own calls and a training, side by side.

Needs a ``config.json`` of the workspace here or above.
"""

from __future__ import annotations

import mlflow
from azureml.core import Experiment, Run, Workspace
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

import autolog


def main() -> None:
    """Log, then read back with Azure's own package."""
    workspace = Workspace.from_config()
    mlflow.set_tracking_uri(workspace.get_mlflow_tracking_uri())
    mlflow.set_experiment("autolog-local")
    autolog.enable()

    with mlflow.start_run():
        mlflow.log_metric("alpha", 0.03)
        x, y = load_digits(return_X_y=True)
        MLPClassifier((32,), max_iter=5, random_state=0).fit(x / 16, y)

    print(autolog.flush())
    # The workspace's own id, which MLflow does not know where the workspace was slow to answer.
    run_id = autolog.last_run().run_id
    run = Run(Experiment(workspace, "autolog-local"), run_id)
    print(f"{run.id} in {workspace.get_details()['name']}: {run.get_metrics()}")


if __name__ == "__main__":
    main()
