"""``autolog doctor`` before a workspace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.azureml.standin import StandIn


def examined(folder: Path, **env: str) -> dict[str, tuple[str, str]]:
    """By subject, what is said and the remedy, which is empty when all is well."""
    done = subprocess.run(
        [sys.executable, "-m", "autolog", "doctor"],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not done.stderr, done.stderr
    assert "eyJ" not in done.stdout
    found: dict[str, tuple[str, str]] = {}
    subject = ""
    for line in done.stdout.splitlines():
        if line.startswith("     -> "):
            found[subject] = found[subject][0], line.removeprefix("     -> ")
        else:
            subject, text = line[4:].strip().split(": ", 1)
            found[subject] = text, ""
            assert line.startswith(("BAD", "ok "))
    assert done.returncode == any(remedy for _, remedy in found.values())
    return found


def test_all_is_well(workspace: StandIn, tmp_path: Path) -> None:
    """Who one is, that the token opens the workspace and its run, the clock, the packages."""
    run_id = workspace.create_run()
    environ = workspace.environ("service principal")
    environ.update(MLFLOW_TRACKING_URI=workspace.uri, MLFLOW_RUN_ID=run_id)
    found = examined(tmp_path, **environ)
    place = workspace.place
    named = f"application {place.client_id} of tenant {place.tenant}; "
    assert found["credential"][0].startswith(named)
    assert found["target answers"] == ("yes, https://eastus.api.azureml.ms", "")
    assert found["run"] == (f"{run_id} can be reached", "")
    assert "azureml-mlflow" in found["packages"][0]
    for subject in ("credential", "clock", "packages"):
        assert found[subject][1] == "", found


def test_each_fault_has_its_remedy(workspace: StandIn, tmp_path: Path) -> None:
    """The workspace of a config.json: a wrong secret, a clock that is slow, packages that clash."""
    workspace.write_config(tmp_path)
    workspace.tokens.skew = 3000
    old = tmp_path / "site" / "azureml_mlflow-1.60.0.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: azureml-mlflow\nVersion: 1.60.0\n")
    found = examined(
        tmp_path,
        **workspace.environ("service principal")
        | {"AZURE_CLIENT_SECRET": "guessed", "PYTHONPATH": str(old.parent)},
    )
    assert found["config.json"][0].startswith(workspace.place.name)
    text, remedy = found["credential"]
    assert "AADSTS7000215" in text
    assert "az login" in remedy
    text, remedy = found["clock"]
    assert text in {f"{seconds} s behind Azure's" for seconds in range(2999, 3002)}
    assert "NTP" in remedy
    text, remedy = found["packages"]
    assert text.startswith("azureml-mlflow 1.60.0 beside MLflow 3.")
    assert remedy == 'pip install "azureml-mlflow>=1.62"'
    assert "run" not in found


def test_a_job_that_may_not(workspace: StandIn, tmp_path: Path) -> None:
    """Its role is too small and its run is not there; nobody signs in."""
    workspace.faults.status(403, "experiments/")
    environ = workspace.environ("job") | {"MLFLOW_RUN_ID": "0" * 32}
    found = examined(tmp_path, **environ)
    assert found["credential"][0].startswith("this job; ")
    assert "role AzureML Data Scientist" in found["target answers"][1]
    text, remedy = found["run"]
    assert text == f"{'0' * 32} is not in the workspace"
    assert "unset MLFLOW_RUN_ID" in remedy
    assert workspace.count("/oauth2/") == 0


def test_what_is_no_workspace(tmp_path: Path) -> None:
    """A registry has the same scheme, and takes no runs."""
    found = examined(tmp_path, MLFLOW_TRACKING_URI="azureml://registries/azureml")
    text, remedy = found["workspace"]
    assert text.startswith("the target names none")
    assert "get_mlflow_tracking_uri()" in remedy
    assert "target answers" not in found
