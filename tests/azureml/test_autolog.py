"""autolog in a workspace: where runs go, with which credential, and what stands there."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import autolog
from support import run_script

from tests.azureml.programs import FORMS, SLOWLY, TRAIN, ran, run

if TYPE_CHECKING:
    from tests.azureml.standin import StandIn


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_enable(form: str, workspace: StandIn, tmp_path: Path) -> None:
    """Each leaves the run with its values, read back from the workspace, and says its page.

    A workspace that takes no datasets is left without, and nobody hears of it.
    """
    workspace.faults.status(404, "log-inputs")
    done = ran(FORMS[form] + TRAIN, workspace, tmp_path)
    page, run_id = done.stdout.splitlines()[-2:]
    assert f": {page}\n" in done.stderr
    assert page == f"https://ml.azure.com/runs/{run_id}?wsid={workspace.place.scope}"
    steps = [p.step for p in workspace.points(run_id) if p.key == "epoch_loss"]
    assert steps == [0, 1, 2]
    assert not workspace.doubles()
    found = workspace.mlflow.client().get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params["max_iter"] == "3"
    assert workspace.count("log-inputs", 404) == 1
    assert not any(seen.is_signed for seen in workspace.requests if "/discovery" in seen.path)


def test_in_a_job(workspace: StandIn, tmp_path: Path) -> None:
    """The run that the service opened is adopted, its status left alone; nobody signs in.

    So it is where the program names the workspace, as it does on a laptop.
    The last files are waited for, since the machine goes away.
    """
    env = workspace.environ("job")
    workspace.faults.slow(1, "artifacts")
    enable = "import autolog\nautolog.enable(workspace=autolog.workspace.from_config())"
    object_and_files = """
from azureml.core import Run
autolog.enable(workspace=Run.get_context().experiment.workspace)
autolog.log_metric("by object", 0.5)
for name in ("a", "b", "c"):
    open(name, "w").write(name)
    autolog.log_artifact(name)
"""
    run(enable + TRAIN + object_and_files, workspace, tmp_path, "bare", **env)
    run_id = env["MLFLOW_RUN_ID"]
    assert workspace.artifacts_of(run_id) == {name: name.encode() for name in "abc"}
    assert {p.key for p in workspace.points(run_id)} >= {"epoch_loss", "by hand", "by object"}
    assert workspace.mlflow.client().get_run(run_id).info.status == "RUNNING"
    assert workspace.count("/oauth2/") == 0
    assert workspace.count("runs/create") == 0


# -- MLflow's own calls ----------------------------------------------------------------------------

MLFLOWS_OWN = """
import os
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
autolog.disable()
assert not hasattr(store.get_host_creds, "__wrapped__")
assert mlflow.get_run(active.info.run_id).data.metrics == {"loss": 1 / 300}
assert os.environ["MLFLOW_TRACKING_URI"].rstrip("?") == os.environ["WORKSPACE"]
print(autolog.last_run().run_id)
"""


@pytest.mark.parametrize("form", FORMS)
def test_mlflows_own_calls(form: str, workspace: StandIn, tmp_path: Path) -> None:
    """They go by way of the journal, whichever way it was named, and afterwards by themselves."""
    done = ran(FORMS[form] + MLFLOWS_OWN, workspace, tmp_path)
    (run_id,) = done.stdout.splitlines()  # no link of MLflow's beside it
    assert f"https://ml.azure.com/runs/{run_id}?wsid={workspace.place.scope}\n" in done.stderr
    assert [p.step for p in workspace.points(run_id)] == list(range(300))
    assert not workspace.doubles()
    assert workspace.count("log-metric") == 0
    assert workspace.count("log-batch", 200) < 12
    assert workspace.artifacts_of(run_id) == {"notes/a.txt": b"hello"}
    assert workspace.mlflow.client().get_run(run_id).info.status == "FINISHED"


AWAY = """
import os, time
import autolog, mlflow
for place in (autolog.workspace.from_config(), os.environ["WORKSPACE"]):
    autolog.enable(workspace=place)
    started = time.monotonic()
    mlflow.set_experiment("away")
    with mlflow.start_run():
        mlflow.log_metric("loss", 0.5)
        mlflow.log_text("hello", "a.txt")
    print(time.monotonic() - started)
print(autolog.status()["receipt"].pending)
"""


@pytest.mark.parametrize("secret", ["", "guessed"], ids=["silent", "signed out"])
def test_a_workspace_that_cannot_be_asked(secret: str, workspace: StandIn, tmp_path: Path) -> None:
    """Calls that write wait for it two seconds once and raise nothing, its host known or not."""
    env = dict.fromkeys(("AUTOLOG_EXIT_TIMEOUT", "AUTOLOG_EXIT_TIMEOUT_EPHEMERAL"), "0.1")
    if secret:
        env["AZURE_CLIENT_SECRET"] = secret
    else:
        workspace.faults.stall("")
    *seconds, pending = run(AWAY, workspace, tmp_path, **env)
    assert max(map(float, seconds)) < 4
    assert pending == "4"


# -- limits and faults -----------------------------------------------------------------------------


def test_limits(workspace: StandIn, tmp_path: Path) -> None:
    """Many values, params and tags: nothing is refused for good, the rest is in params.json."""
    workspace.faults.status(503, "artifacts/batch/metadata", times=3)
    source = f"""{FORMS["config.json"]}
import time
autolog.enable(extra_tags={{"team": "y" * 1500}})
with autolog.run("limits"):
    for step in range(2000):
        autolog.log_metric("loss", step, step=step)
    autolog.log_params({{f"p{{i:03d}}": i for i in range(210)}})
    autolog.set_tags({{"long": "x" * 3000, "k" * 120: "long name"}})
    autolog.set_tags({{f"t{{i:02d}}": i for i in range(48)}})
limits = autolog.last_run()
autolog.enable(extra_tags={{**{{f"e{{i:02d}}": i for i in range(60)}}, "k" * 120: "long name"}})
with autolog.run("begins"):
    autolog.log_metric("loss", 1.0)
from pathlib import Path
from autolog.journal import progress
(journal,) = autolog.status()["journals"]
for _ in range(600):
    receipt = autolog.flush(0)
    if receipt.complete:
        break
    time.sleep(0.1)
waiting = [key for key, *_ in progress.load(Path(journal)).uploads]
assert receipt.complete and limits._run.key not in waiting, receipt
autolog.flush(60)
print(limits.run_id)
print(autolog.last_run().run_id)
"""
    run_id, begins = run(source, workspace, tmp_path)[-2:]
    extra = {**{f"e{i:02d}": str(i) for i in range(60)}, "k" * 120: "long name"}
    kept = workspace.ledger.tags[begins].items() & extra.items()
    assert len(workspace.ledger.tags[begins]) == 50
    (beside,) = workspace.artifacts_of(begins).values()
    assert dict(kept) | json.loads(beside)["tags"] == extra
    assert [p.step for p in workspace.points(run_id)] == list(range(2000))
    assert workspace.count("log-batch", 200) < 60
    found = workspace.mlflow.client().get_run(run_id).data
    versions = [v for n, v in workspace.artifacts_of(run_id).items() if n.startswith("params")]
    beside = json.loads(versions[-1])
    stored = {key for key in found.params if key.startswith("p")}
    assert stored | beside["whole"].keys() == {f"p{i:03d}" for i in range(210)}
    assert len(found.params) == 200
    tags = {key for key in workspace.ledger.tags[run_id] if key[0] == "t" and key != "team"}
    assert tags | beside["tags"].keys() >= {f"t{i:02d}" for i in range(48)}
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
    """Written once: the same content is done, other content gets a number.

    Where the service asks for a pause it has one.
    """
    workspace.faults.throttle(4, "artifacts", times=1)
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
    refused, following, *_ = (seen for seen in workspace.requests if "artifacts" in seen.path)
    assert refused.status == 429
    assert following.at - refused.at >= 4


def test_what_is_left_is_sent_as_the_last_line_says(workspace: StandIn, tmp_path: Path) -> None:
    """By a shell in another folder, which knows no more than whose credential counts."""
    source = f"""{FORMS["config.json"]}
autolog.enable(mode="offline")
for step in range(3):
    autolog.log_metric("loss", step, step=step)
"""
    root = ran(source, workspace, tmp_path).stderr.rpartition("autolog sync ")[2].strip()
    (tmp_path / "elsewhere").mkdir()
    person = workspace.environ("service principal")
    autolog("sync", root, env=person, cwd=tmp_path / "elsewhere", code=0)
    (points,) = workspace.ledger.points.values()
    assert [p.step for p in points] == [0, 1, 2]


# -- jobs ------------------------------------------------------------------------------------------


LATE = """
import subprocess, sys, time
import autolog, mlflow
autolog.enable()
with mlflow.start_run() as run:
    time.sleep(12)
    mlflow.log_metric("loss", 0.5, step=0)
    mlflow.log_text("late", "late.txt")
    assert mlflow.get_run(run.info.run_id).data.metrics == {"loss": 0.5}
    with mlflow.start_run(nested=True):
        mlflow.log_metric("inner", 1.0)
    assert autolog.last_run().metrics().keys() == {"inner"}
child = "import autolog; autolog.enable(); import mlflow; mlflow.log_text('child', 'child.txt')"
subprocess.run([sys.executable, "-c", child], check=True)
receipt = autolog.flush(30)
assert receipt.complete, receipt
"""


def test_mlflows_own_calls_beyond_the_first_token(workspace: StandIn, tmp_path: Path) -> None:
    """Reads, files, nested runs and processes of a job have its newest token, in any time zone."""
    workspace.tokens.lifetime = 10
    env = workspace.environ("job")
    run(LATE, workspace, tmp_path, "bare", TZ="Asia/Tokyo", **env)
    run_id = env["MLFLOW_RUN_ID"]
    assert [p.value for p in workspace.points(run_id)] == [0.5]
    assert workspace.artifacts_of(run_id) == {"late.txt": b"late", "child.txt": b"child"}
    assert workspace.count("", 401) == 0


def test_a_job_that_dies_without_the_service(
    workspace: StandIn, tmp_path: Path, autolog_home: Path
) -> None:
    """What it could not send is in its outputs, and sent from elsewhere later, each value once.

    So is what a child process logged that has ended before.
    """
    env = workspace.environ("job")
    source = """import multiprocessing
import autolog
autolog.enable()
def work():
    autolog.log_metric("by child", 1.0, step=0)
for step in range(30):
    autolog.log_metric("loss", step, step=step)
    if step == 9:
        autolog.flush(3)
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
"""
    workspace.faults.lose_reply("log-batch", times=1)
    workspace.faults.stall("log-batch")
    done = run_script(source, cwd=tmp_path, env=env, timeout=120)
    kept = tmp_path / "outputs" / "autolog"
    assert f"autolog sync {kept} --to '{workspace.uri}'" in done.stderr
    (state,) = autolog_home.rglob("shipper.json")
    os.kill(json.loads(state.read_text())["pid"], signal.SIGKILL)
    workspace.faults.reset()
    assert list(kept.iterdir())
    person = workspace.environ("service principal")
    elsewhere = {**person, "AUTOLOG_DIR": str(tmp_path / "elsewhere")}
    for _ in range(2):
        autolog("sync", kept, "--to", workspace.uri, env=elsewhere, code=0)
    points = workspace.points(env["MLFLOW_RUN_ID"])
    assert sorted(p.step for p in points if p.key == "loss") == list(range(30))
    assert [p.value for p in points if p.key == "by child"] == [1.0]
    assert not workspace.doubles()
