"""Answers `autolog doctor` about a workspace, one question a process.

An answer is a text and what to do, which is empty when all is well.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import requests

from autolog import environment
from autolog.exporters import Rejected, Retryable
from autolog.exporters.azureml import AzureExporter
from autolog.workspace import bearer
from autolog.workspace.address import Workspace

Answer = tuple[str, str]

_SECONDS = 10.0
_MOST_SKEW = 60.0
"""Seconds: values carry the time of this machine, and tokens that of the service."""
_SIGN_IN = (
    "run az login, give this machine a managed identity, or set AZURE_TENANT_ID, AZURE_CLIENT_ID "
    "and AZURE_CLIENT_SECRET of a service principal"
)
_REMEDIES = {
    401: "sign in to the tenant of the workspace: az login --tenant ID, or AZURE_TENANT_ID",
    403: "have the workspace's owner give you the role AzureML Data Scientist",
    404: "correct subscription, resource group and name of the workspace",
}
_UNREACHABLE = "see whether it can be reached from here: proxy, firewall, private endpoint"


def main() -> None:
    """Print the answer to the question that the arguments ask."""
    environ = environment.variables()
    exporter = AzureExporter(Workspace.parse(environ["MLFLOW_TRACKING_URI"]), environ)
    question, *about = sys.argv[1:]
    if question == "credential":
        answer = _credential(exporter, environ)
    elif question == "clock":
        answer = _clock(exporter)
    elif question == "run":
        answer = _run(exporter, *about)
    else:
        answer = _service(exporter)
    sys.stdout.write(json.dumps(answer))


def _credential(exporter: AzureExporter, environ: Mapping[str, str]) -> Answer:
    try:
        token = exporter.token()
    except Retryable as problem:
        is_lacking = isinstance(problem.__cause__, ModuleNotFoundError)
        return problem.reason, "pip install 'mlflow-autolog[azureml]'" if is_lacking else _SIGN_IN
    unnamed = "this job" if environ.get("AZUREML_RUN_ID") else "a credential that names nobody"
    end = time.strftime("%H:%M:%S", time.localtime(bearer.expiry(token)))
    return f"{bearer.holder(token) or unnamed}; the token of now lives until {end}", ""


def _clock(exporter: AzureExporter) -> Answer:
    asked = time.time()
    try:
        reply = requests.head(exporter.address, timeout=_SECONDS)
        theirs = parsedate_to_datetime(reply.headers["Date"]).timestamp()
    except (OSError, LookupError, ValueError) as error:
        return f"{exporter.address} does not tell the time ({type(error).__name__})", _UNREACHABLE
    ahead = theirs + 0.5 - (asked + time.time()) / 2  # a header has whole seconds
    text = f"{abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} Azure's"
    return text, "set the clock of this machine, with NTP" if abs(ahead) > _MOST_SKEW else ""


def _service(exporter: AzureExporter) -> Answer:
    try:
        exporter.check()
    except Rejected as refusal:
        return refusal.reason, _REMEDIES[404]
    except Retryable as problem:
        return problem.reason, _REMEDIES.get(problem.status or 0, _UNREACHABLE)
    return f"yes, {exporter.address}", ""


def _run(exporter: AzureExporter, run_id: str) -> Answer:
    remedy = "unset MLFLOW_RUN_ID and AZUREML_RUN_ID, or name the workspace that has the run"
    try:
        found = exporter.get_run(run_id)
    except (Rejected, Retryable) as problem:
        return f"{run_id}: {problem.reason}", remedy
    if found is None or found.deleted:
        return f"{run_id} {'was deleted' if found else 'is not in the workspace'}", remedy
    return f"{run_id} can be reached", ""
