"""The tracking URI of a workspace that MLflow's own client can use."""

from __future__ import annotations

from functools import cache

from mlflow.exceptions import MlflowException

from autolog import recorder, settings
from autolog.workspace.address import Workspace, is_workspace
from autolog.workspace.identity import credential_here
from autolog.workspace.lookup import full_uri


def usable(uri: str) -> str:
    """The same URI, with the host of the workspace's region where it has none.

    Asks the workspace once a process, as MLflow's client is about to do; raises `MlflowException`
    where it does not answer.
    """
    return _looked_up(uri) if _lacks_host(uri) else uri


@cache
def _lacks_host(uri: str) -> bool:
    return is_workspace(uri) and not Workspace.parse(uri).host


@cache
def _looked_up(uri: str) -> str:
    known = recorder.get().full_uris.get(uri)
    try:
        if known is not None:
            return known()
        token = credential_here(uri)
        environ = settings.shipper_environment(uri, sends_tokens=token is not None)
        return full_uri(environ, token() if token else "")
    except Exception as error:
        raise MlflowException(f"the workspace cannot be asked for its host: {error}") from error
