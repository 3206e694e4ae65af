"""Long trainings in a workspace: thousands of values, and what is kept of them in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from support import eventually, run_script

from tests.azureml.programs import FORMS, run

if TYPE_CHECKING:
    from tests.azureml.standin import StandIn

BOOST = f"""
import os
{FORMS["page, before"]}
import numpy as np
import xgboost
mlflow.set_experiment("boosting")
data = xgboost.DMatrix(np.random.default_rng(0).random((40, 3)), np.arange(40) % 2)
options = {{"max_depth": 2, "nthread": 1, "objective": "binary:logistic"}}

def train(rounds):
    with mlflow.start_run():
        xgboost.train(options, data, rounds, [(data, "train")], verbose_eval=False)
"""


def test_rounds_of_xgboost(workspace: StandIn, tmp_path: Path) -> None:
    """Every value of MLflow's own autologging is there once, past the limit of 250 in a request."""
    source = f"""{BOOST}
mlflow.xgboost.autolog(log_models=False)
for rounds in (700, 2000):
    train(rounds)
    receipt = autolog.flush(90)
    assert receipt.complete, receipt
    print(rounds, autolog.last_run().run_id)
"""
    lines = [line.split() for line in run(source, workspace, tmp_path)]
    found = {int(line[0]): line[1] for line in lines if line[0].isdigit()}
    assert found.keys() == {700, 2000}
    for rounds, run_id in found.items():
        points = workspace.points(run_id)
        assert {p.key for p in points} == {"train-logloss"}
        assert [p.step for p in points] == list(range(rounds))
        stored = workspace.mlflow.client().get_run(run_id)
        assert stored.data.params["max_depth"] == "2"
        assert stored.data.params["num_boost_round"] == str(rounds)
        assert stored.info.status == "FINISHED"
    assert not workspace.doubles()
    assert workspace.count("log-batch", 400) == 0


def test_models_of_xgboost(workspace: StandIn, tmp_path: Path) -> None:
    """With models MLflow's autologging logs nothing there, and the remedy is said once."""
    workspace.write_config(tmp_path)
    source = f"{BOOST}\nmlflow.xgboost.autolog()\ntrain(2)\ntrain(2)\n"
    done = run_script(source, cwd=tmp_path, env=workspace.environ("service principal"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("log_models=False helps") == 1, done.stderr


def test_what_is_kept_in_memory(workspace: StandIn, tmp_path: Path) -> None:
    """Of the points that were sent nothing stays, though replies were lost."""
    workspace.faults.lose_reply("log-batch", times=2)
    source = """
import gc
import autolog
autolog.enable(mode="thread")
for step in range(1500):
    autolog.log_metrics({"loss": step, "accuracy": step}, step=step)
receipt = autolog.flush(90)
assert receipt.complete, receipt
from autolog.exporters.azureml import AzureExporter
(exporter,) = (found for found in gc.get_objects() if isinstance(found, AzureExporter))
kept = (*exporter._found.values(), *exporter._doubtful.values())
print(sum(map(len, kept)), len(exporter._experiments), len(exporter._created))
"""
    env = workspace.environ("job")
    (kept,) = run(source, workspace, tmp_path, "bare", **env)
    assert kept == "0 0 0"
    for key in ("loss", "accuracy"):
        points = workspace.points(env["MLFLOW_RUN_ID"])
        assert [p.step for p in points if p.key == key] == list(range(1500))
    assert not workspace.doubles()


def test_many_names_of_metrics(workspace: StandIn, tmp_path: Path) -> None:
    """Near the documented 50 the user is told once; what is refused past them is counted."""
    workspace.limits.metric_names = 50
    workspace.write_config(tmp_path)
    source = f"""{FORMS["config.json"]}
with autolog.run("wide"):
    for step in range(2):
        for number in range(60):
            autolog.log_metric(f"m{{number:02d}}", number, step=step)
print(autolog.flush(60))
print(autolog.last_run().run_id)
"""
    done = run_script(source, cwd=tmp_path, env=workspace.environ("service principal"))
    assert done.returncode == 0, done.stderr
    account, run_id = done.stdout.splitlines()
    assert account.startswith("120 logged, 100 stored, 20 refused (")
    assert "Limit=50" in account
    assert done.stderr.count("has 45 metrics; Azure ML documents 50 at most") == 1
    assert len(workspace.points(run_id)) == 100


def test_outputs_that_cannot_be_written(workspace: StandIn, tmp_path: Path) -> None:
    """Training goes on, it is said once, and what waits is sent all the same."""
    (tmp_path / "outputs").write_text("a file")
    workspace.faults.stall("log-batch")
    source = """
import autolog
autolog.enable()
for step in range(3):
    autolog.log_metric("loss", step, step=step)
"""
    env = {**workspace.environ("job"), "AUTOLOG_EXIT_TIMEOUT_EPHEMERAL": "0.5"}
    done = run_script(source, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no copy in") == 1
    assert "internal error" not in done.stderr
    eventually(lambda: workspace.count("log-batch"), 20)
    workspace.faults.reset()
    eventually(lambda: len(workspace.points(env["MLFLOW_RUN_ID"])) == 3, 40)
    assert not workspace.doubles()
