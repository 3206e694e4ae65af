"""The credentials that the environment holds, and what of it a process that sends is given."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from autolog.environment import export, run_id_of_job, variables

_CREDENTIALS = (
    "MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD MLFLOW_TRACKING_TOKEN MLFLOW_TRACKING_AUTH"
    " MLFLOW_TRACKING_AWS_SIGV4 MLFLOW_TRACKING_INSECURE_TLS MLFLOW_TRACKING_SERVER_CERT_PATH"
    " MLFLOW_TRACKING_CLIENT_CERT_PATH DATABRICKS_HOST DATABRICKS_TOKEN AUTOLOG_TOKENS"
    " AZURE_CLIENT_ID AZURE_CLIENT_SECRET AZURE_CLIENT_CERTIFICATE_PATH AZURE_TENANT_ID"
    " AZURE_FEDERATED_TOKEN_FILE AZUREML_RUN_TOKEN"
).split()
_OF_A_JOB = ("MLFLOW_TRACKING_TOKEN", "AZUREML_RUN_TOKEN")
_FOR_WORKSPACES = (
    *_OF_A_JOB,
    *("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_FEDERATED_TOKEN_FILE"),
)
_TOKENS, _SENT = "AUTOLOG_TOKENS", "stdin"
_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_SLOWEST_STORE = 5_000_000
"""Bytes a second that what a server stores files in takes at least."""
_SHIPPER_VARIABLES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the shipper retries; mlflow would block for minutes
    _TIMEOUT: "30",
    "MLFLOW_DATABRICKS_ENDPOINT_HTTP_RETRY_TIMEOUT": "1",  # the same for Databricks' client
}


def has_workspace_credential() -> bool:
    """Whether the environment has a credential for a workspace of Azure ML."""
    return any(variables().get(name) for name in _FOR_WORKSPACES)


def parts(uri: str) -> list[str]:
    """What tells the credential for a tracking URI from another one; never to be stored."""
    run_id = run_id_of_job()  # whose token is another one every hour
    names = [name for name in _CREDENTIALS if run_id is None or name not in _OF_A_JOB]
    return [urlsplit(uri).netloc, run_id or "", *(variables().get(name, "") for name in names)]


def job_token() -> str | None:
    """The token that Azure ML gave the job of this process, or the newest that has followed."""
    given = next(filter(None, map(variables().get, _OF_A_JOB)), None)
    return given if run_id_of_job() else None


def renew_job_token(token: str) -> None:
    """Have what starts from now on use another token in place of the job's."""
    former = job_token()
    for name in _OF_A_JOB:
        if variables().get(name) == former:
            export(name, token)


def await_storing(size: int) -> None:
    """Have MLflow's client in this process wait for a server that stores so many bytes.

    It answers when it has stored all of them, and what it stores them in may be slow.
    """
    seconds = int(_SHIPPER_VARIABLES[_TIMEOUT]) + size // _SLOWEST_STORE
    export(_TIMEOUT, str(seconds))


def are_tokens_sent() -> bool:
    """Whether the process that started this one sends it tokens."""
    return variables().get(_TOKENS) == _SENT


def keep_tokens_here() -> None:
    """What this process and its children log waits for tokens of this process."""
    export(_TOKENS, f"process {os.getpid()}")


def shipper_environment(
    uri: str, *, with_credentials: bool = True, sends_tokens: bool = False
) -> dict[str, str]:
    """The environment for a shipper that sends to `uri`, which may hold a password."""
    left_out = {"PYTHONINSPECT", _TOKENS, *(() if with_credentials else _CREDENTIALS)}
    kept = {k: v for k, v in variables().items() if k not in left_out}
    tokens = {_TOKENS: _SENT} if sends_tokens else {}
    return kept | _SHIPPER_VARIABLES | {"MLFLOW_TRACKING_URI": uri} | tokens
