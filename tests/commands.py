"""The command line in real processes, and journals for it to work on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from readback import Experiment

STEPS = 50
CURVE = [(step, step / 8) for step in range(STEPS)]
"""What `log_offline` logs, as step and value."""
SECRET = "s3cr3t-t0k3n"


def autolog(
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    code: int | None = None,
    timeout: float = 90,
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m autolog`` with `env` on top of ours; `code` is the exit status expected."""
    done = subprocess.run(
        [sys.executable, "-m", "autolog", *map(str, arguments)],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if code is not None:
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def log_offline(experiment: Experiment, cwd: Path, *, extra: str = "", **env: str) -> Path:
    """Log a run of `CURVE` offline, in a process that is over then; its journal."""
    source = f"""
        import autolog
        autolog.enable(mode="offline")
        with autolog.run("train"):
            for step in range({STEPS}):
                autolog.log_metrics({{"loss": step / 8}}, step=step)
            {extra}
    """
    home = Path(os.environ["AUTOLOG_DIR"])
    before = set(home.glob("*/*/meta.json"))
    experiment.script(source, cwd, **env)
    (meta,) = set(home.glob("*/*/meta.json")) - before
    return meta.parent


def curves(experiment: Experiment) -> list[list[tuple[int, float]]]:
    """What each run of the experiment has on the server, as step and value."""
    server = experiment.server
    found = server.client().get_experiment_by_name(experiment.name)
    if found is None:
        return []
    runs = server.client().search_runs([found.experiment_id])
    return [sorted((p.step, p.value) for p in server.points(run.info.run_id)) for run in runs]


def rich_user(home: Path) -> dict[str, str]:
    """The environment of a user with every kind of credential for his own server."""
    (home / ".mlflow").mkdir(parents=True)
    saved = f"[mlflow]\nmlflow_tracking_username = u\nmlflow_tracking_password = {SECRET}\n"
    (home / ".mlflow" / "credentials").write_text(saved)
    (home / ".netrc").write_text(f"machine 127.0.0.1 login u password {SECRET}\n")
    (home / ".netrc").chmod(0o600)
    return {
        "HOME": str(home),
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "MLFLOW_TRACKING_TOKEN": SECRET,
    }
