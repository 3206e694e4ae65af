"""Many processes in one workspace: runs on one quota, ranks of a job and their children."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from support import start_script

from tests.azureml.programs import FORMS, TRAIN

if TYPE_CHECKING:
    from tests.azureml.standin import StandIn

RUNS = 12

LOGGER = f"""
import os
{FORMS["tracking URI"]}
with autolog.run(f"run-{{os.environ['NUMBER']}}"):
    for step in range(300):
        autolog.log_metric("loss", step, step=step)
receipt = autolog.flush(120)
assert receipt.complete, receipt
print(autolog.last_run().run_id)
"""


def test_twelve_runs_on_one_quota(workspace: StandIn, tmp_path: Path) -> None:
    """One process sends for all: a 429 holds all of them up, and each value is there once."""
    workspace.faults.quota(requests=12, seconds=2)
    environ = {**workspace.environ("service principal"), "WORKSPACE": workspace.uri}
    trainings = []
    for number in range(RUNS):
        folder = tmp_path / str(number)
        folder.mkdir()
        env = {**environ, "NUMBER": str(number)}
        trainings.append(start_script(LOGGER, cwd=folder, env=env))
    run_ids = []
    for training in trainings:
        out, err = training.communicate(timeout=150)
        assert training.returncode == 0, err
        run_ids.append(out.strip())
    assert len(set(run_ids)) == RUNS
    for run_id in run_ids:
        assert [p.step for p in workspace.points(run_id)] == list(range(300))
    assert not workspace.doubles()
    assert workspace.count("/oauth2/v2.0/token", 200) == 1
    asked = [seen for seen in workspace.requests if "/mlflow/" in seen.path]
    pauses = [later.at - seen.at for seen, later in itertools.pairwise(asked) if seen.status == 429]
    assert pauses
    assert min(pauses) > 0.95, "Retry-After said 1 s"


RANK = f"""
import os, subprocess, sys
import autolog
autolog.enable()
{TRAIN.split("run = autolog")[0]}
rank = os.environ["RANK"]
autolog.log_metric(f"by rank {{rank}}", 1.0, step=0)
if rank == "0":
    import mlflow
    with mlflow.start_run():
        assert "MLFLOW_RUN_ID" not in os.environ
        mlflow.log_metric("by MLflow", 1.0, step=0)
        subprocess.run([sys.executable, "child.py"], check=True)
receipt = autolog.flush(60)
assert receipt.complete, receipt
"""

CHILD = """
import autolog
autolog.enable()
autolog.log_metric("by a child", 1.0, step=0)
import mlflow
mlflow.log_metric("by a child through MLflow", 1.0, step=0)
receipt = autolog.flush(60)
assert receipt.complete, receipt
"""


def test_two_ranks_and_a_child_log_to_the_run_of_their_job(
    workspace: StandIn, tmp_path: Path
) -> None:
    """There is no second run, and rank 0 alone logs."""
    environ = {**workspace.environ("job"), "WORLD_SIZE": "2"}
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "rank.py").write_text(RANK)
    start = "import runpy\nrunpy.run_path('rank.py', run_name='__main__')"
    ranks = [
        start_script(start, cwd=tmp_path, env={**environ, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    for process in ranks:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
        assert "internal error" not in err, err
    run_id = environ["MLFLOW_RUN_ID"]
    assert workspace.count("runs/create") == 0
    assert workspace.count("experiments/") == 0
    assert not workspace.doubles()
    points = [(p.key, p.step) for p in workspace.points(run_id)]
    assert [step for key, step in points if key == "epoch_loss"] == [0, 1, 2]
    named = {key for key, _ in points if key.startswith("by ")}
    assert named == {"by rank 0", "by MLflow", "by a child", "by a child through MLflow"}
    assert workspace.mlflow.client().get_run(run_id).info.status == "RUNNING"
    assert workspace.count("/oauth2/") == 0
