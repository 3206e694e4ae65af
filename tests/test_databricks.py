"""Databricks and plugins of others: stores that MLflow itself resolves, in the sending process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from databricks_host import Databricks
from support import MlflowServer, run_script

from autolog import credentials
from autolog.batching import Batch, Metric
from autolog.databricks_init import init_script
from autolog.exporters import Retryable, RunRefused, exporter_for
from autolog.records import RunStart

WORK = """
import autolog
autolog.enable()
import mlflow
mlflow.set_experiment(EXPERIMENT)
with mlflow.start_run() as active:
    for step in range(50):
        mlflow.log_metric("loss", step / 4, step=step)
    mlflow.log_params({"lr": 0.1, "layers": 3})
    mlflow.set_tag("team", "vision")
    if FILE:
        mlflow.log_text("hello", "notes/a.txt")
with autolog.run("ours"):
    for step in range(50):
        autolog.log_metrics({"epoch_loss": step / 8, "acc": 0.5}, step=step)
    autolog.set_tags({"team": "speech"})
receipt = autolog.flush(150)
assert receipt.complete, receipt
assert len(autolog.last_run().metrics()["acc"]) == 50
print(receipt.acknowledged)
"""
"""150 values, 2 params, 2 tags and a file, by MLflow's own calls and by ours."""


PLATFORM = """
import mlflow
mlflow.autolog(silent=True, log_models=False, log_datasets=False)
"""
"""What Databricks does before the first cell."""

TRAIN = """
import numpy as np
from sklearn.neural_network import MLPClassifier
mlflow.set_experiment("/Shared/trainings")
x = np.random.default_rng(0).random((60, 3))
MLPClassifier(max_iter=3).fit(x, x[:, 0] > 0.5)
receipt = autolog.flush(60)
assert receipt.complete, receipt
"""


def script(source: str, folder: Path, **env: str) -> tuple[str, str]:
    """What a program printed, output and errors; nothing went wrong within autolog."""
    done = run_script(source, cwd=folder, env=env, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "internal error" not in done.stderr, done.stderr
    return done.stdout, done.stderr


def assert_all_is_there(server: MlflowServer, experiment: str) -> dict[str, str]:
    """Every value of `WORK` stands on the server once; the ids of the two runs, by team."""
    client = server.client()
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    ids = {run.data.tags["team"]: run.info.run_id for run in runs}
    assert len(runs) == len(ids) == 2
    assert {run.info.status for run in runs} == {"FINISHED"}
    params = next(run.data.params for run in runs if run.data.params)
    assert params == {"lr": "0.1", "layers": "3"}
    points = {team: server.points(run_id) for team, run_id in ids.items()}
    assert {(p.key, p.step, p.value) for p in points["vision"]} == {
        ("loss", step, step / 4) for step in range(50)
    }
    assert Counter(p.key for p in points["speech"]) == {"epoch_loss": 50, "acc": 50}
    return ids


def start_of_a_run(experiment: str | None = None) -> RunStart:
    """A new run."""
    return RunStart.new("run", 1, experiment=experiment)


@pytest.fixture
def databricks(mlflow_server: MlflowServer) -> Iterator[Databricks]:
    """A workspace of Databricks."""
    with Databricks(mlflow_server.url) as workspace:
        yield workspace


def test_databricks(databricks: Databricks, mlflow_server: MlflowServer, tmp_path: Path) -> None:
    """Values of all kinds arrive once and in batches, also beside the platform's autologging."""
    experiment = "/Users/someone@example.com/once"
    source = f"EXPERIMENT, FILE = {experiment!r}, True\n{PLATFORM}{WORK}{TRAIN}"
    script(source, tmp_path, **databricks.environ)
    ids = assert_all_is_there(mlflow_server, experiment)
    client = mlflow_server.client()
    trainings = client.get_experiment_by_name("/Shared/trainings")
    assert trainings is not None
    (run,) = client.search_runs([trainings.experiment_id])
    counts = Counter(point.key for point in mlflow_server.points(run.info.run_id))
    assert counts["epoch_loss"] == 3
    assert counts["training_accuracy_score"] == 1
    assert run.data.params["max_iter"] == "3"
    files = {path: content for path, content in databricks.files.items() if ids["vision"] in path}
    assert files == {f"{ids['vision']}/notes/a.txt": b"hello"}
    assert databricks.count("runs/log-metric") == 0
    assert databricks.count("runs/log-batch") < 12
    for file in (tmp_path / "autolog-home").rglob("*"):
        assert not file.is_file() or databricks.token.encode() not in file.read_bytes(), file


def test_what_databricks_refuses(databricks: Databricks, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run needs an experiment, which is said; a token that is none and 429 are tried again."""
    for name, value in databricks.environ.items():
        monkeypatch.setenv(name, value)
    for name, value in credentials.shipper_environment("databricks").items():
        monkeypatch.setenv(name, value)
    exporter = exporter_for("databricks", {})
    with pytest.raises(RunRefused, match=r"mlflow\.set_experiment"):
        exporter.open_run(start_of_a_run(), None)
    run_id = exporter.open_run(start_of_a_run("/Shared/refusals"), None)
    batch = Batch(run_id, (Metric("loss", 0.5, 1, 0),))
    databricks.is_busy = True
    with pytest.raises(Retryable) as throttled:
        exporter.export(batch)
    databricks.is_busy = False
    databricks.token = "another"
    with pytest.raises(Retryable, match="Invalid access token") as refused:
        exporter.export(batch)
    assert not throttled.value.suspect
    assert refused.value.is_unauthorized
    assert not refused.value.suspect
    monkeypatch.setenv("DATABRICKS_TOKEN", "another")
    exporter.export(batch)


# -- stores of others ------------------------------------------------------------------------------

PLUGIN = """
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.rest_utils import MlflowHostCreds


class LabStore(RestStore):
    def __init__(self, store_uri, artifact_uri=None):
        super().__init__(lambda: MlflowHostCreds("http://" + store_uri.partition("://")[2]))
"""


def install_plugin(folder: Path) -> None:
    """A package in `folder` whose entry point registers the scheme ``lab`` with MLflow."""
    (folder / "lab_store.py").write_text(PLUGIN)
    about = folder / "lab_store-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-store\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[mlflow.tracking_store]\nlab = lab_store:LabStore\n")


def test_a_scheme_of_a_plugin(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    """A store that an entry point registers takes part in the same way, in both processes."""
    packages = tmp_path / "packages"
    packages.mkdir()
    install_plugin(packages)
    uri = mlflow_server.url.replace("http://", "lab://")
    source = f"EXPERIMENT, FILE = 'lab', False\n{WORK}"
    script(source, tmp_path, MLFLOW_TRACKING_URI=uri, PYTHONPATH=str(packages))
    assert_all_is_there(mlflow_server, "lab")


# -- clusters --------------------------------------------------------------------------------------

WORKSPACE = (
    "azureml://eastus.api.azureml.ms/mlflow/v2.0/subscriptions/0a1b/resourceGroups/group"
    "/providers/Microsoft.MachineLearningServices/workspaces/name"
)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite:///mlflow.db", r"'sqlite:///mlflow.db' is a place on one machine: give a server"),
        ("mlruns", "'mlruns' is a place on one machine"),
        ("http://user:secret@host", "give http://host, and the password as a secret"),
        ("azureml://host", "'azureml://host' names no workspace"),
        (WORKSPACE.replace("eastus.api.azureml.ms", ""), "does not say the workspace's region"),
        ("http://host\nrm -rf /", "no tracking URI: it has spaces or control characters"),
    ],
)
def test_clusters_that_cannot_log(uri: str, said: str) -> None:
    """What a node could not use is refused, and no password is put into a script."""
    with pytest.raises(ValueError, match=said) as caught:
        init_script(uri)
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize("what", ["experiment", "package"])
def test_words_of_a_script_are_one_line(what: str) -> None:
    """Nothing that is given ends the line that it stands in."""
    with pytest.raises(ValueError, match="use one line of text"):
        init_script("databricks", **{what: "a\nb"})
