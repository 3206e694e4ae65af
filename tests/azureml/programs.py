"""Programs that log to the stand-in, and how they name the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from support import run_script

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from tests.azureml.standin import Entry, StandIn

TRAIN = """
import numpy as np
from sklearn.neural_network import MLPClassifier

x = np.random.default_rng(0).random((60, 3))
model = MLPClassifier(max_iter=3).fit(x, x[:, 0] > 0.5)
run = autolog.last_run()
losses = [point.value for point in run.metrics()["epoch_loss"]]
assert np.allclose(losses, model.loss_curve_), losses
autolog.log_metric("by hand", 0.25)
receipt = autolog.flush(30)
assert receipt.complete, receipt
print(run.url)
print(run.run_id)
"""

SDK = """
import os
from azureml.core import Workspace
from azureml.core.authentication import ServicePrincipalAuthentication
auth = ServicePrincipalAuthentication(
    os.environ.pop("AZURE_TENANT_ID"), os.environ.pop("AZURE_CLIENT_ID"),
    os.environ.pop("AZURE_CLIENT_SECRET"),
)
ws = Workspace.from_config(auth=auth)
"""

FORMS = {
    "config.json": "import autolog\nautolog.enable(workspace=autolog.workspace.from_config())",
    "object": f"{SDK}\nimport autolog\nautolog.enable(workspace=ws)",
    "tracking URI": "import autolog, os\nautolog.enable(workspace=os.environ['WORKSPACE'])",
    "page, before": f"{SDK}\nimport mlflow, autolog\n"
    "mlflow.set_tracking_uri(ws.get_mlflow_tracking_uri())\nautolog.enable()",
    "page, after": f"import autolog\nautolog.enable()\n{SDK}\nimport mlflow\n"
    "mlflow.set_tracking_uri(ws.get_mlflow_tracking_uri())",
}


SLOWLY = """
import time
with autolog.run("slow"):
    for step in range(int(os.environ["STEPS"])):
        autolog.log_metric("loss", step / 2, step=step)
        time.sleep(0.1)
receipt = autolog.flush(30)
assert receipt.complete, receipt
print(autolog.last_run().run_id)
"""


def ran(
    source: str,
    workspace: StandIn,
    folder: Path,
    entry: Entry = "service principal",
    timeout: float = 120,
    **env: str,
) -> CompletedProcess[str]:
    """What a program prints; nothing went wrong within autolog."""
    workspace.write_config(folder)
    environ = {**workspace.environ(entry), "WORKSPACE": workspace.uri, **env}
    done = run_script(source, cwd=folder, env=environ, timeout=timeout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "internal error" not in done.stderr, done.stderr
    return done


def run(source: str, workspace: StandIn, folder: Path, *args: Any, **env: Any) -> list[str]:
    """The lines that a program prints as its output; as `ran`."""
    return ran(source, workspace, folder, *args, **env).stdout.splitlines()
