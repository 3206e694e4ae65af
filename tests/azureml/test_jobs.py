"""Scripts that the real SDK v1 submits, started as the service starts jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from support import eventually

from tests.azureml.clients import SIGN_IN, client

if TYPE_CHECKING:
    from tests.azureml.standin import StandIn


def test_a_submitted_script_logs_to_its_run(workspace: StandIn, tmp_path: Path) -> None:
    """Sent with its folder and environment, started with the service's variables, kept outputs."""
    workspace.write_config(tmp_path)
    project = tmp_path / "project"
    project.mkdir()
    (project / "work.py").write_text(
        "import os, sys, mlflow\n"
        "with mlflow.start_run():\n"
        "    mlflow.log_metric('epoch_loss', float(sys.argv[1]))\n"
        "    mlflow.log_param('team', os.environ['TEAM'])\n"
        "open('outputs/result.txt', 'w').write('done')\n"
    )
    submit = """
    from azureml.core import Environment, Experiment, ScriptRunConfig
    from azureml.core.conda_dependencies import CondaDependencies

    environment = Environment("training")
    environment.python.conda_dependencies = CondaDependencies.create(pip_packages=["mlflow"])
    config = ScriptRunConfig(
        "project", "work.py", ["0.5"], compute_target="cpu-cluster", environment=environment
    )
    config.run_config.environment_variables = {"TEAM": "vision"}
    run = Experiment(ws, "remote").submit(config)
    run.wait_for_completion()
    print(run.id, run.get_status(), run.get_metrics(), sorted(run.get_file_names()))
    """
    done = client(SIGN_IN + submit, workspace, tmp_path)[-1]
    run_id = done.partition(" ")[0]
    files = "['outputs/result.txt', 'user_logs/std_log.txt']"
    assert done == f"{run_id} Completed {{'epoch_loss': 0.5}} {files}", workspace.job(run_id).output
    assert [point.value for point in workspace.points(run_id)] == [0.5]


def test_a_job_of_two_ranks_and_one_that_dies(workspace: StandIn, tmp_path: Path) -> None:
    """Each rank has its place; a job whose node goes away has failed, and its outputs are kept."""
    workspace.write_config(tmp_path)
    project = tmp_path / "project"
    project.mkdir()
    (project / "ranks.py").write_text(
        "import os\n"
        "print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'],"
        " 'in', os.environ['AZUREML_RUN_ID'])\n"
    )
    (project / "endless.py").write_text(
        "import time\n"
        "open('outputs/half.txt', 'w').write('half')\n"
        "print('at work', flush=True)\n"
        "time.sleep(600)\n"
    )
    submit = """
    from azureml.core import Environment, Experiment, ScriptRunConfig
    from azureml.core.runconfig import PyTorchConfiguration

    common = {"compute_target": "cpu-cluster", "environment": Environment("training")}
    both = PyTorchConfiguration(process_count=2, node_count=1)
    ranks = ScriptRunConfig("project", "ranks.py", distributed_job_config=both, **common)
    endless = ScriptRunConfig("project", "endless.py", **common)
    for config in (ranks, endless):
        print(Experiment(ws, "remote").submit(config).id)
    """
    ranks, endless = map(workspace.job, client(SIGN_IN + submit, workspace, tmp_path))
    eventually(lambda: "at work" in endless.output, 30)
    endless.kill()
    eventually(lambda: ranks.is_over and endless.is_over, 30)
    assert ranks.status == "Completed", ranks.output
    assert [line for line in ranks.output.splitlines() if line.startswith("rank")] == [
        f"rank {rank} of 2 in {ranks.run_id}" for rank in (0, 1)
    ]
    assert endless.status == "Failed"
    assert workspace.artifacts_of(endless.run_id)["outputs/half.txt"] == b"half"
