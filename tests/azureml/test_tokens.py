"""Credentials of all kinds through autolog, and trainings that outlive their tokens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.azureml.programs import FORMS, SDK, SLOWLY, run

if TYPE_CHECKING:
    from tests.azureml.standin import Entry, StandIn

LIFETIME = float(os.environ.get("TOKEN_SECONDS", "6"))
"""Seconds that a token lives; ``make azure-long`` says minutes."""
EXPIRIES = 6 if "TOKEN_SECONDS" in os.environ else 3
STEPS = int(EXPIRIES * LIFETIME * 7.7)
"""Tenths of a second: a token is replaced after two thirds of its life, so as often in these."""
PATIENCE = 120 + STEPS / 5

FILE = """
import pathlib
pathlib.Path("notes-{0}.txt").write_text("{0}")
autolog.log_artifact("notes-{0}.txt")
receipt = autolog.flush(30)
assert receipt.complete, receipt
"""


@pytest.mark.parametrize(
    ("form", "zone"), [("config.json", "Asia/Tokyo"), ("object", "America/New_York")]
)
def test_tokens_that_expire(form: str, zone: str, workspace: StandIn, tmp_path: Path) -> None:
    """A training goes on across expiries, wherever its clock stands, and nothing is refused."""
    workspace.tokens.lifetime = LIFETIME
    source = f"import os\n{FORMS[form]}\n{SLOWLY}"
    run_id = run(source, workspace, tmp_path, TZ=zone, STEPS=str(STEPS), timeout=PATIENCE)[-1]
    assert [p.step for p in workspace.points(run_id)] == list(range(STEPS))
    assert not workspace.doubles()
    assert workspace.count("/oauth2/", 200) >= EXPIRIES
    assert workspace.count("log-batch", 401) == 0


@pytest.mark.parametrize(
    ("left_out", "zone"), [("", "America/New_York"), ("MLFLOW_EXPERIMENT_ID", "Asia/Tokyo")]
)
def test_job_tokens_that_expire(
    left_out: str, zone: str, workspace: StandIn, tmp_path: Path
) -> None:
    """The same with a job's token, with and without the id of its experiment.

    So do files: the first one of all that comes late, and one after others.
    """
    workspace.tokens.lifetime = LIFETIME
    env = workspace.environ("job") | {"TZ": zone, "STEPS": str(STEPS)}
    env.pop(left_out, None)
    early = FILE.format("early") if left_out else ""
    source = f"import autolog, os\nautolog.enable()\n{early}{SLOWLY}{FILE.format('late')}"
    adopted = source.replace('autolog.run("slow")', "autolog.pause()")
    run(adopted, workspace, tmp_path, "bare", timeout=PATIENCE, **env)
    expected = {f"notes-{word}.txt" for word in ("early", "late")[not left_out :]}
    assert workspace.artifacts_of(env["MLFLOW_RUN_ID"]).keys() == expected
    points = workspace.points(env["MLFLOW_RUN_ID"])
    assert [p.step for p in points] == list(range(STEPS))
    assert not workspace.doubles()
    assert EXPIRIES <= workspace.count("/token", 200) <= 4 * EXPIRIES
    assert workspace.count("/oauth2/") == 0


def test_a_token_that_is_refused(workspace: StandIn, tmp_path: Path) -> None:
    """Another one is fetched at once, though the old one says that it lives."""
    workspace.faults.status(401, "log-batch", times=2)
    run_id = run(f"import os\n{FORMS['config.json']}\n{SLOWLY}", workspace, tmp_path, STEPS="5")[-1]
    assert len(workspace.points(run_id)) == 5
    assert workspace.count("/oauth2/", 200) > 1


def test_a_job_token_that_is_refused(workspace: StandIn, tmp_path: Path) -> None:
    """The old one gets the next, for values and for files, and nobody signs in."""
    workspace.faults.status(401, "log-batch", times=1)
    workspace.faults.status(401, "artifacts", times=2)
    env = workspace.environ("job") | {"STEPS": "5"}
    del env["MLFLOW_EXPERIMENT_ID"]
    source = f"import autolog, os\nautolog.enable()\n{SLOWLY}{FILE.format('late')}"
    run(
        source.replace('autolog.run("slow")', "autolog.pause()"), workspace, tmp_path, "bare", **env
    )
    assert len(workspace.points(env["MLFLOW_RUN_ID"])) == 5
    assert workspace.count("/token") == 2
    assert workspace.count("/oauth2/") == 0


def test_a_clock_that_is_ahead(workspace: StandIn, tmp_path: Path) -> None:
    """By more than the life of a token: the service takes it, and nobody signs in all the time."""
    workspace.tokens.skew = -4200
    run_id = run(f"import os\n{FORMS['config.json']}\n{SLOWLY}", workspace, tmp_path, STEPS="20")[
        -1
    ]
    assert [p.step for p in workspace.points(run_id)] == list(range(20))
    assert workspace.count("/oauth2/", 200) == 1


def test_a_second_credential(workspace: StandIn, tmp_path: Path) -> None:
    """A later `enable` with a good one mends what the first one, whose token has died, left."""
    dead = workspace.tokens.issue("https://management.azure.com")
    workspace.tokens.expire()
    source = f"""{SDK}
import autolog
from azureml.core.authentication import ArmTokenAuthentication
dead = ArmTokenAuthentication(os.environ["DEAD"], cloud="AzureCloud")
autolog.enable(
    workspace=Workspace(
        ws.subscription_id, ws.resource_group, ws.name, auth=dead,
        _disable_service_check=True, _location="eastus", _workspace_id="id",
    )
)
with autolog.run("mended"):
    autolog.log_metric("loss", 1.0, step=0)
receipt = autolog.flush(2)
assert receipt.pending == 1, receipt
autolog.enable(workspace=ws)
receipt = autolog.flush(15)
assert receipt.complete, receipt
print(autolog.last_run().run_id)
"""
    run_id = run(source, workspace, tmp_path, DEAD=dead)[-1]
    assert [p.value for p in workspace.points(run_id)] == [1.0]


@pytest.mark.parametrize("entry", ["managed identity", "azure cli"])
def test_credentials_of_a_machine(entry: Entry, workspace: StandIn, tmp_path: Path) -> None:
    """A managed identity and who has signed in with the CLI need no variable of ours."""
    chain = {"AZURE_TOKEN_CREDENTIALS": "dev"} if entry == "azure cli" else {}
    source = f"{FORMS['tracking URI']}\n{SLOWLY}"
    run_id = run(source, workspace, tmp_path, entry, STEPS="5", **chain)[-1]
    assert [p.step for p in workspace.points(run_id)] == list(range(5))
    assert workspace.count("/msi/token", 200) > 0
    assert workspace.count("/oauth2/") == 0


@pytest.mark.parametrize("chain", ["dev", "InteractiveBrowserCredential"])
def test_nobody_is_asked(chain: str, workspace: StandIn, tmp_path: Path) -> None:
    """Without a credential no window opens, nothing waits, and what is logged stays.

    The programs that may have one are not started again at once, and where the environment names
    what would open a window, that is said.
    """
    seconds = 8 if chain == "dev" else 3
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, act in {"browser": "touch opened", "az": "echo >> az-calls; exit 1"}.items():
        (tools / name).write_text(f"#!/bin/sh\ncd {tmp_path}; {act}\n")
        (tools / name).chmod(0o700)
    source = f"""{FORMS["tracking URI"]}
autolog.log_metric("loss", 1.0, step=0)
receipt = autolog.flush({seconds})
assert receipt.pending == 1, receipt
(shipper,) = autolog.status()["shippers"].values()
print(shipper.problem)
"""
    (said,) = run(
        source,
        workspace,
        tmp_path,
        "bare",
        AZURE_TOKEN_CREDENTIALS=chain,
        AUTOLOG_EXIT_TIMEOUT="0.1",
        AUTOLOG_EXIT_TIMEOUT_EPHEMERAL="0.1",
        BROWSER=str(tools / "browser"),
        DISPLAY=":0",
        PATH=f"{tools}:{os.environ['PATH']}",
    )
    assert said.startswith("no token: ")
    assert not (tmp_path / "opened").exists()
    if chain == "dev":
        assert 1 < len((tmp_path / "az-calls").read_text()) < 8
    else:
        assert f"AZURE_TOKEN_CREDENTIALS={chain}: " in said
    assert workspace.count("/oauth2/") == 0


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
