"""autolog in a workspace: where runs go, with which credential, and what stands there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import run_script

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
}


def run(
    source: str,
    workspace: StandIn,
    folder: Path,
    entry: Entry = "service principal",
    **env: str,
) -> list[str]:
    """The lines that a program prints; nothing went wrong within autolog."""
    workspace.write_config(folder)
    environ = {**workspace.environ(entry), "WORKSPACE": workspace.uri, **env}
    done = run_script(source, cwd=folder, env=environ, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "internal error" not in done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_enable(form: str, workspace: StandIn, tmp_path: Path) -> None:
    """Each leaves the run with its values, read back from the workspace, and says its page."""
    page, run_id = run(FORMS[form] + TRAIN, workspace, tmp_path)[-2:]
    assert page == f"https://ml.azure.com/runs/{run_id}?wsid={workspace.place.scope}"
    steps = [p.step for p in workspace.points(run_id) if p.key == "epoch_loss"]
    assert steps == [0, 1, 2]
    assert not workspace.doubles()
    found = workspace.mlflow.client().get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params["max_iter"] == "3"
    assert not any(seen.is_signed for seen in workspace.requests if "/discovery" in seen.path)


def test_in_a_job(workspace: StandIn, tmp_path: Path) -> None:
    """The run that the service opened is adopted, its status left alone; nobody signs in."""
    env = workspace.environ("job")
    run("import autolog\nautolog.enable()" + TRAIN, workspace, tmp_path, "bare", **env)
    run_id = env["MLFLOW_RUN_ID"]
    assert {p.key for p in workspace.points(run_id)} >= {"epoch_loss", "by hand"}
    assert workspace.mlflow.client().get_run(run_id).info.status == "RUNNING"
    assert workspace.count("/oauth2/") == 0
    assert workspace.count("runs/create") == 0


# -- MLflow's own calls ----------------------------------------------------------------------------

MLFLOWS_OWN = """
import mlflow
mlflow.set_experiment("own")
with mlflow.start_run() as active:
    for step in range(300):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_params({f"p{i}": i for i in range(3)})
    mlflow.log_text("hello", "notes/a.txt")
receipt = autolog.flush(30)
assert receipt.complete, receipt
from azureml.mlflow._store.tracking.store import AzureMLRestStore
store = mlflow.MlflowClient()._tracking_client.store
assert isinstance(store, AzureMLRestStore) and store.service_context is not None
print(autolog.last_run().run_id)
"""


@pytest.mark.parametrize("form", FORMS)
def test_mlflows_own_calls(form: str, workspace: StandIn, tmp_path: Path) -> None:
    """They go by way of the journal, whichever way the workspace was named."""
    run_id = run(FORMS[form] + MLFLOWS_OWN, workspace, tmp_path)[-1]
    assert [p.step for p in workspace.points(run_id)] == list(range(300))
    assert not workspace.doubles()
    assert workspace.count("log-metric") == 0
    assert workspace.count("log-batch", 200) < 12
    assert workspace.artifacts_of(run_id) == {"notes/a.txt": b"hello"}
    assert workspace.mlflow.client().get_run(run_id).info.status == "FINISHED"


# -- tokens ----------------------------------------------------------------------------------------

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


@pytest.mark.parametrize(
    ("form", "zone"), [("config.json", "Asia/Tokyo"), ("object", "America/New_York")]
)
def test_tokens_that_expire(form: str, zone: str, workspace: StandIn, tmp_path: Path) -> None:
    """A training goes on across six expiries, wherever its clock stands, and nothing is refused."""
    workspace.tokens.lifetime = 6
    source = f"import os\n{FORMS[form]}\n{SLOWLY}"
    run_id = run(source, workspace, tmp_path, TZ=zone, STEPS="280")[-1]
    assert [p.step for p in workspace.points(run_id)] == list(range(280))
    assert not workspace.doubles()
    assert workspace.count("/oauth2/", 200) > 5
    assert workspace.count("log-batch", 401) == 0


@pytest.mark.parametrize(
    ("left_out", "zone"), [("", "America/New_York"), ("MLFLOW_EXPERIMENT_ID", "Asia/Tokyo")]
)
def test_job_tokens_that_expire(
    left_out: str, zone: str, workspace: StandIn, tmp_path: Path
) -> None:
    """The same with a job's token, with and without the id of its experiment."""
    workspace.tokens.lifetime = 6
    env = workspace.environ("job") | {"TZ": zone, "STEPS": "280"}
    env.pop(left_out, None)
    source = f"import autolog, os\nautolog.enable()\n{SLOWLY}"
    run(
        source.replace('autolog.run("slow")', "autolog.pause()"), workspace, tmp_path, "bare", **env
    )
    points = workspace.points(env["MLFLOW_RUN_ID"])
    assert [p.step for p in points] == list(range(280))
    assert not workspace.doubles()
    assert workspace.count("/token", 200) > 5
    assert workspace.count("/oauth2/") == 0


def test_a_token_that_is_refused(workspace: StandIn, tmp_path: Path) -> None:
    """Another one is fetched at once, though the old one says that it lives."""
    workspace.faults.status(401, "log-batch", times=2)
    run_id = run(f"import os\n{FORMS['config.json']}\n{SLOWLY}", workspace, tmp_path, STEPS="5")[-1]
    assert len(workspace.points(run_id)) == 5
    assert workspace.count("/oauth2/", 200) > 1


def test_no_secret_is_left(workspace: StandIn, tmp_path: Path) -> None:
    """Neither secrets nor tokens stand in a file of ours, a command line, or what is printed."""
    look = """
import pathlib, subprocess
lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
home = pathlib.Path(os.environ["AUTOLOG_DIR"])
content = lines.encode() + b"".join(f.read_bytes() for f in home.rglob("*") if f.is_file())
for word in (b"the~secret", b"eyJ"):
    assert word not in content, word
"""
    source = f"import os\n{FORMS['object']}\n{SLOWLY.replace('receipt =', look + 'receipt =')}"
    lines = run(source, workspace, tmp_path, STEPS="20")
    assert not any("eyJ" in line or "the~secret" in line for line in lines)


# -- limits and faults -----------------------------------------------------------------------------


def test_limits(workspace: StandIn, tmp_path: Path) -> None:
    """Many values, params and tags: nothing is refused for good, the rest is in params.json."""
    source = f"""{FORMS["config.json"]}
autolog.enable(extra_tags={{"team": "y" * 1500}})
with autolog.run("limits"):
    for step in range(2000):
        autolog.log_metric("loss", step, step=step)
    autolog.log_params({{f"p{{i:03d}}": i for i in range(260)}})
    autolog.set_tags({{"long": "x" * 3000, "k" * 120: "long name"}})
    autolog.set_tags({{f"t{{i:02d}}": i for i in range(60)}})
receipt = autolog.flush(60)
assert receipt.complete, receipt
print(autolog.last_run().run_id)
"""
    run_id = run(source, workspace, tmp_path)[-1]
    assert [p.step for p in workspace.points(run_id)] == list(range(2000))
    assert workspace.count("log-batch", 200) < 60
    found = workspace.mlflow.client().get_run(run_id).data
    versions = [v for n, v in workspace.artifacts_of(run_id).items() if n.startswith("params")]
    beside = json.loads(versions[-1])
    stored = {key for key in found.params if key.startswith("p")}
    assert stored | beside["whole"].keys() == {f"p{i:03d}" for i in range(260)}
    assert len(found.params) == 200
    tags = {key for key in workspace.ledger.tags[run_id] if key[0] == "t" and key != "team"}
    assert tags | beside["tags"].keys() >= {f"t{i:02d}" for i in range(60)}
    assert len(workspace.ledger.tags[run_id]) == 50
    assert beside["tags"]["k" * 120] == "long name"
    for key, text in (("long", "x" * 3000), ("team", "y" * 1500)):
        assert len(found.tags[key]) <= 1000
        assert beside["tags"][key] == text


def test_lost_replies(workspace: StandIn, tmp_path: Path) -> None:
    """What the service stored before its reply was lost is not sent again."""
    workspace.faults.lose_reply("log-batch", times=3)
    source = f"import os\n{FORMS['config.json']}\n{SLOWLY}"
    run_id = run(source, workspace, tmp_path, STEPS="40")[-1]
    assert [p.step for p in workspace.points(run_id)] == list(range(40))
    assert not workspace.doubles()


def test_throttled(workspace: StandIn, tmp_path: Path) -> None:
    """A storm of 429: everything arrives, once."""
    workspace.faults.quota(4, 2.0)
    source = f"import os\n{FORMS['config.json']}\n{SLOWLY}"
    run_id = run(source, workspace, tmp_path, STEPS="60")[-1]
    assert [p.step for p in workspace.points(run_id)] == list(range(60))
    assert not workspace.doubles()
    assert workspace.count("/mlflow/", 429) > 0


def test_artifacts(workspace: StandIn, tmp_path: Path) -> None:
    """Written once: the same content is done, other content gets a number."""
    source = f"""{FORMS["object"]}
import pathlib
with autolog.run("files"):
    for text in ("one", "one", "two"):
        pathlib.Path("a.txt").write_text(text)
        autolog.log_artifact("a.txt", "notes")
        autolog.flush(30)
receipt = autolog.flush(30)
assert receipt.complete, receipt
print(autolog.last_run().run_id)
"""
    run_id = run(source, workspace, tmp_path)[-1]
    expected = {"notes/a.txt": b"one", "notes/a-2.txt": b"two"}
    assert workspace.artifacts_of(run_id) == expected


# -- jobs ------------------------------------------------------------------------------------------


def test_a_job_that_dies_without_the_service(
    workspace: StandIn, tmp_path: Path, autolog_home: Path
) -> None:
    """What it could not send is in its outputs, and sent from elsewhere later, each value once."""
    env = workspace.environ("job")
    source = """import autolog
autolog.enable()
for step in range(30):
    autolog.log_metric("loss", step, step=step)
    if step == 9:
        autolog.flush(3)
"""
    workspace.faults.lose_reply("log-batch", times=1)
    workspace.faults.stall("log-batch")
    run(source, workspace, tmp_path, "bare", **env)
    (state,) = autolog_home.rglob("shipper.json")
    os.kill(json.loads(state.read_text())["pid"], signal.SIGKILL)
    workspace.faults.reset()
    kept = tmp_path / "outputs" / "autolog"
    assert list(kept.iterdir())
    sync = [sys.executable, "-m", "autolog", "sync", str(kept), "--to", workspace.uri]
    person = workspace.environ("service principal")
    elsewhere = {**os.environ, **person, "AUTOLOG_DIR": str(tmp_path / "elsewhere")}
    for _ in range(2):
        done = subprocess.run(
            sync, env=elsewhere, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(p.step for p in workspace.points(env["MLFLOW_RUN_ID"])) == list(range(30))
    assert not workspace.doubles()
