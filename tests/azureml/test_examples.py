"""The scripts of ``examples/azureml`` as a person runs them, and what they leave."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import run_script

import autolog
from tests.azureml.notebook import START

if TYPE_CHECKING:
    from tests.azureml.standin import Entry, StandIn

EXAMPLES = Path(__file__).parents[2] / "examples" / "azureml"
RUN = """
import runpy
runpy.run_path({path!r}, run_name="__main__")
"""


def example(
    name: str, workspace: StandIn, folder: Path, entry: Entry = "service principal"
) -> list[str]:
    """The lines that an example prints, started where the workspace's ``config.json`` is."""
    workspace.write_config(folder)
    place = workspace.place
    sdk_v1 = {
        "AZUREML_SERVICE_PRINCIPAL_TENANT_ID": place.tenant,
        "AZUREML_SERVICE_PRINCIPAL_ID": place.client_id,
        "AZUREML_SERVICE_PRINCIPAL_PASSWORD": place.secret,
    }
    environ = workspace.environ(entry) | (sdk_v1 if entry == "service principal" else {})
    source = (START if entry == "notebook" else "") + RUN.format(path=str(EXAMPLES / name))
    done = run_script(source, cwd=folder, env=environ, timeout=170)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "internal error" not in done.stderr, done.stderr
    return done.stdout.splitlines()


def assert_trained(workspace: StandIn, run_id: str) -> None:
    """The five epochs of an example are in its run, once."""
    assert [p.step for p in workspace.points(run_id) if p.key == "epoch_loss"] == [*range(5)]
    assert not workspace.doubles()
    found = workspace.mlflow.client().get_run(workspace.ledger.inward(run_id))
    assert found.info.status == "FINISHED"


@pytest.mark.parametrize("script", ["submit.py", "submit_v2.py"])
def test_submitting(script: str, workspace: StandIn, tmp_path: Path) -> None:
    """The job's values arrive in the run that the service opened, beside what it needs."""
    last = example(script, workspace, tmp_path)[-1]
    job = workspace.job(last.replace(":", " ").split()[0])
    assert "epoch_loss" in last, job.output
    assert_trained(workspace, job.run_id)
    assert {"epoch_loss", "accuracy"} <= {point.key for point in workspace.points(job.run_id)}
    assert workspace.count("runs/create") == 0
    assert {f"mlflow-autolog=={autolog.__version__}", "scikit-learn"} <= {*job.packages}
    assert any(package.startswith("azureml-mlflow==") for package in job.packages)


def test_a_run_of_this_machine(workspace: StandIn, tmp_path: Path) -> None:
    """MLflow's calls and the training share a run, which Azure's own package reads."""
    last = example("local_run.py", workspace, tmp_path)[-1]
    run_id, _, read = last.partition(f" in {workspace.place.name}: ")
    assert "'alpha': 0.03" in read
    assert_trained(workspace, run_id)


def test_a_notebook(workspace: StandIn, tmp_path: Path) -> None:
    """The notebook's credential is all that is needed, and its page is told."""
    page = example("databricks_notebook.py", workspace, tmp_path, "notebook")[-1]
    assert "/experiments/autolog-databricks/runs/" in page
    assert_trained(workspace, page.rpartition("/")[2])
    assert workspace.count("/oauth2/") == 0


def test_the_page_of_the_docs(workspace: StandIn, tmp_path: Path) -> None:
    """Its Python blocks are one program of a notebook, in their order."""
    workspace.write_config(tmp_path)
    page = (EXAMPLES.parents[1] / "docs" / "azureml.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    program = [START, *blocks, 'autolog.log_metric("a", 1.0)\nassert autolog.flush(60).complete\n']
    environ = workspace.environ("notebook")
    done = run_script("".join(program), cwd=tmp_path, env=environ, timeout=150)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    (points,) = workspace.ledger.points.values()
    assert [point.key for point in points] == ["a"]
