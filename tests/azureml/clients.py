"""Client processes of the stand-in."""

from __future__ import annotations

from pathlib import Path

from support import run_script

from tests.azureml.standin import Entry, StandIn

IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
}
"""MLflow's own retries, without the minutes between them."""


def client(
    source: str, workspace: StandIn, tmp_path: Path, entry: Entry = "service principal", **env: str
) -> list[str]:
    """The lines that a client process prints."""
    done = run_script(source, cwd=tmp_path, env={**workspace.environ(entry), **env}, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.splitlines()
