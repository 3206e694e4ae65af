"""What the stand-in refuses, and how it misbehaves on command, as the real packages meet it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import run_script

from tests.azureml.clients import IMPATIENT, client
from tests.azureml.tokens import JOB, Tokens

if TYPE_CHECKING:
    from tests.azureml.standin import StandIn

TRY = """
    import mlflow
    from mlflow.exceptions import MlflowException

    def tried(call, *args, **kwargs):
        try:
            call(*args, **kwargs)
        except Exception as error:
            print(" ".join(f"{type(error).__name__}: {error}".split()))
        else:
            print("taken")
"""


def in_a_job(source: str, workspace: StandIn, folder: Path, **env: str) -> tuple[list[str], str]:
    """The lines that a job prints which starts with `TRY`, and its run."""
    environ = {**workspace.environ("job"), **IMPATIENT, **env}
    done = run_script(TRY + source, cwd=folder, env=environ, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    lines = [line for line in done.stdout.splitlines() if " View " not in line]
    return lines, environ["MLFLOW_RUN_ID"]


def test_a_wrong_secret_is_told(workspace: StandIn, tmp_path: Path) -> None:
    """In the words of the tenant, and no request goes to the workspace."""
    (said,) = client(
        TRY + "    tried(mlflow.start_run)\n",
        workspace,
        tmp_path,
        MLFLOW_TRACKING_URI=workspace.uri,
        AZURE_CLIENT_SECRET="guessed",
    )
    assert "ClientAuthenticationError" in said
    assert "AADSTS7000215" in said
    assert workspace.count("/mlflow/") == 0


@pytest.mark.parametrize("flaw", ["expired at will", "forged", "for another audience"])
def test_a_bad_token_is_refused(workspace: StandIn, tmp_path: Path, flaw: str) -> None:
    """With 401, which MLflow does not try again."""
    env = workspace.environ("job")
    if flaw == "expired at will":
        workspace.tokens.expire()
    elif flaw == "forged":
        env["MLFLOW_TRACKING_TOKEN"] = Tokens(workspace.place.tenant).issue(JOB)
    else:
        token = workspace.tokens.issue("https://storage.azure.com")
        env["MLFLOW_TRACKING_TOKEN"] = token
    done = run_script(TRY + "    tried(mlflow.start_run)\n", cwd=tmp_path, env=env, timeout=120)
    assert "RestException: INTERNAL_ERROR" in done.stdout, done.stderr
    assert workspace.count("/mlflow/", 401) == workspace.count("/mlflow/") == 1


def test_a_job_token_opens_no_arm(workspace: StandIn, tmp_path: Path) -> None:
    """What the service gives a job is good for the workspace alone."""
    lines, _ = in_a_job(
        """
    import os, requests
    from azureml.core import Run
    header = {"Authorization": "Bearer " + os.environ["MLFLOW_TRACKING_TOKEN"]}
    print(requests.get("https://management.azure.com/subscriptions", headers=header).status_code)
    print(Run.get_context().id == os.environ["AZUREML_RUN_ID"])
    """,
        workspace,
        tmp_path,
    )
    assert lines == ["401", "True"]


def test_limits_are_enforced_in_the_words_of_the_service(
    workspace: StandIn, tmp_path: Path
) -> None:
    """Values of a name, params, tags, files of a call, length of a page."""
    lines, run_id = in_a_job(
        """
    import os
    from mlflow.entities import Metric, Param, RunTag
    from pathlib import Path
    client = mlflow.MlflowClient()
    run_id = os.environ["MLFLOW_RUN_ID"]
    tried(client.log_batch, run_id, [Metric("loss", 1.0, 1, step) for step in range(251)])
    tried(client.log_batch, run_id, [Metric("loss", 1.0, 1, step) for step in range(250)])
    for hundred in range(2):
        client.log_batch(run_id, params=[Param(f"p{hundred}-{n}", "1") for n in range(100)])
    tried(client.log_param, run_id, "one-more", "1")
    tried(client.set_tag, run_id, "long", "x" * 1001)
    tried(client.set_tag, run_id, "k" * 101, "short")
    for number in range(45):
        client.set_tag(run_id, f"tag-{number}", "1")
    tried(client.log_batch, run_id, tags=[RunTag(f"more-{n}", "1") for n in range(10)])
    folder = Path("many")
    folder.mkdir()
    for number in range(101):
        (folder / f"{number}.txt").write_text("content")
    tried(client.log_artifacts, run_id, str(folder))
    tried(client.get_metric_history, run_id, "loss")
    store = client._tracking_client.store
    first = store.get_metric_history(run_id, "loss", max_results=100)
    rest = store.get_metric_history(run_id, "loss", max_results=999, page_token=first.token)
    print(len(first), len(rest), rest.token)
    """,
        workspace,
        tmp_path,
        AZUREML_ARTIFACT_BATCH_SIZE="101",
    )
    expected = [
        "FieldName=MetricV2Dto.Value/Count, Limit=250, Size=251.",
        "taken",
        "FieldName=Parameters, Limit=200, Size=201.",
        "FieldName=Tags.Value, Limit=1000, Size=1001.",
        "FieldName=Tags.Key, Limit=100, Size=101.",
        "FieldName=Tags, Limit=50,",
        "Artifact batch size exceeded the limit of 100",
        "MaxResults = 25000 is invalid: MaxResults must be less than 1000",
        "100 150 None",
    ]
    assert len(lines) == len(expected), "\n".join(lines)
    for line, words in zip(lines, expected, strict=True):
        assert words in line
    assert "INVALID_PARAMETER_VALUE" in lines[0]
    assert len(workspace.points(run_id)) == 250


def test_a_throttled_client_comes_again(workspace: StandIn, tmp_path: Path) -> None:
    """MLflow waits as long as ``Retry-After`` says."""
    workspace.faults.throttle(retry_after=1, where="log-metric", times=2)
    lines, run_id = in_a_job(
        """
    with mlflow.start_run():
        tried(mlflow.log_metric, "loss", 0.5)
    """,
        workspace,
        tmp_path,
    )
    assert lines == ["taken"]
    statuses = [seen.status for seen in workspace.requests if "log-metric" in seen.path]
    assert statuses == [429, 429, 200]
    assert len(workspace.points(run_id)) == 1


def test_a_quota_lets_through_what_it_may(workspace: StandIn, tmp_path: Path) -> None:
    """And answers 429 to the rest, which comes again."""
    workspace.faults.quota(requests=4, seconds=2)
    lines, run_id = in_a_job(
        """
    with mlflow.start_run():
        for step in range(6):
            tried(mlflow.log_metric, "loss", 0.5, step=step)
    """,
        workspace,
        tmp_path,
    )
    assert lines == ["taken"] * 6
    assert workspace.count("/mlflow/", 429) >= 1
    assert [point.step for point in workspace.points(run_id)] == [*range(6)]
    assert not workspace.doubles()


def test_the_clock_of_the_service_can_be_ahead(workspace: StandIn, tmp_path: Path) -> None:
    """It is that of the replies and of the tokens."""
    workspace.tokens.skew = 3000
    lines, _ = in_a_job(
        """
    import email.utils, os, requests, time, jwt
    reply = requests.get("https://eastus.api.azureml.ms/discovery")
    now = time.time()
    print(round((email.utils.parsedate_to_datetime(reply.headers["Date"]).timestamp() - now) / 100))
    claims = jwt.decode(os.environ["MLFLOW_TRACKING_TOKEN"], options={"verify_signature": False})
    print(round((claims["exp"] - now) / 100))
    """,
        workspace,
        tmp_path,
    )
    assert lines == ["30", "66"]


def test_what_is_no_part_of_azure_is_an_empty_404(workspace: StandIn, tmp_path: Path) -> None:
    """Logged models among them, so that MLflow 3 cannot log a model."""
    lines, _ = in_a_job(
        """
    from sklearn.linear_model import LinearRegression
    with mlflow.start_run():
        model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
        tried(mlflow.sklearn.log_model, model, name="model")
    """,
        workspace,
        tmp_path,
    )
    said = "/api/2.0/mlflow/logged-models failed with error code 404 != 200. Response body: ''"
    assert said in lines[-1]


def test_an_artifact_is_written_once(workspace: StandIn, tmp_path: Path) -> None:
    """The second upload to a path fails, and the first content stays; large files go in blocks."""
    lines, run_id = in_a_job(
        """
    from pathlib import Path
    Path("large.bin").write_bytes(b"0123456789abcdef" * (65 << 16))
    with mlflow.start_run():
        tried(mlflow.log_text, "first", "notes.txt")
        tried(mlflow.log_text, "second", "notes.txt")
        tried(mlflow.log_artifact, "large.bin")
    """,
        workspace,
        tmp_path,
    )
    assert lines[0] == lines[2] == "taken"
    assert f"ArtifactId ExperimentRun/dcid.{run_id}/notes.txt already exists." in lines[1]
    kept = workspace.artifacts_of(run_id)
    assert kept["notes.txt"] == b"first"
    assert kept["large.bin"] == b"0123456789abcdef" * (65 << 16)
    assert workspace.count("large.bin", 201) > 1


def test_a_point_that_comes_twice_is_kept_twice(workspace: StandIn, tmp_path: Path) -> None:
    """A reply is lost, the client sends again: both count, and both are read back."""
    workspace.faults.lose_reply("log-metric", times=1)
    lines, run_id = in_a_job(
        """
    from azureml.core import Run
    with mlflow.start_run() as run:
        tried(mlflow.log_metric, "loss", 0.5, step=1)
    store = mlflow.MlflowClient()._tracking_client.store
    print(len(store.get_metric_history(run.info.run_id, "loss", max_results=999)))
    print(Run.get_context().get_metrics())
    """,
        workspace,
        tmp_path,
    )
    assert lines == ["taken", "2", "{'loss': [0.5, 0.5]}"]
    ((run, point), times) = workspace.doubles().popitem()
    assert (run, point.key, times) == (run_id, "loss", 2)


@pytest.mark.parametrize("fault", ["status", "drop", "stall", "slow"])
def test_a_fault_is_survived_by_trying_again(
    workspace: StandIn, tmp_path: Path, fault: str
) -> None:
    """Errors, dropped connections and silence each meet one request and store nothing."""
    switch = {
        "status": lambda: workspace.faults.status(503, "log-metric", times=1),
        "drop": lambda: workspace.faults.drop("log-metric", times=1),
        "stall": lambda: workspace.faults.stall("log-metric", times=1),
        "slow": lambda: workspace.faults.slow(1, "log-metric", times=1),
    }
    switch[fault]()
    lines, run_id = in_a_job(
        """
    with mlflow.start_run():
        tried(mlflow.log_metric, "loss", 0.5)
    """,
        workspace,
        tmp_path,
    )
    assert lines == ["taken"]
    assert len(workspace.points(run_id)) == 1
    assert workspace.count("log-metric") == (1 if fault == "slow" else 2)


def test_the_plugins_own_async_logging_is_answered(workspace: StandIn, tmp_path: Path) -> None:
    """Through the two preview routes that Azure has for it."""
    lines, run_id = in_a_job(
        """
    with mlflow.start_run():
        tried(mlflow.log_metric("loss", 0.5, synchronous=False).wait)
    """,
        workspace,
        tmp_path,
    )
    assert lines == ["taken"]
    assert len(workspace.points(run_id)) == 1
    assert workspace.count("preview/mlflow/runs/log-batch-async", 200) == 1
    assert workspace.count("preview/mlflow/runs/get-run-data-status", 200) >= 1


def test_no_other_name_can_be_reached(workspace: StandIn, tmp_path: Path) -> None:
    """The proxy refuses it, and the test that looks at `refused` knows."""
    lines, _ = in_a_job(
        """
    import requests
    tried(requests.get, "https://example.org/")
    tried(requests.get, "http://169.254.169.254/metadata/identity/oauth2/token")
    """,
        workspace,
        tmp_path,
    )
    assert "ProxyError" in lines[0]
    assert workspace.refused == ["example.org", "169.254.169.254"]
    workspace.refused.clear()
