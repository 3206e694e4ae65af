"""What may stand for a workspace: an address, or an object of Azure's packages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from autolog import credentials, targets
from autolog.workspace import notebook
from autolog.workspace.address import Workspace, is_workspace

_JOBS_AUTHENTICATION = "AzureMLTokenAuthentication"
_AUDIENCE = "https://management.azure.com/.default"


class Identity(NamedTuple):
    """A workspace, and what an object of Azure's packages does for it in this process."""

    workspace: Workspace
    token: Callable[[], str] | None = None
    """Gives a token. It may ask a service, and raises what its package raises; so does `uri`."""
    uri: Callable[[], str] | None = None
    """Gives the tracking URI with its host, and has MLflow's own client use the same credential."""


def identify(workspace: object) -> Identity:
    """What the argument ``workspace`` says.

    A `Workspace`, a tracking URI, an ``azureml.core.Workspace``, or an ``azure.ai.ml.MLClient``.
    The workspace of this process's job is as the job has it, with its host and its credential,
    whichever of them names it: what a job is given opens nothing that would tell the host.
    Raises `ValueError` for anything else.
    """
    named = _named(workspace)
    uri = targets.uri_of_job() or ""
    if is_workspace(uri) and (own := Workspace.parse(uri)).is_same(named.workspace):
        return Identity(own)
    return named


def _named(workspace: object) -> Identity:
    if isinstance(workspace, Workspace):
        return Identity(workspace)
    if isinstance(workspace, str):
        return Identity(Workspace.parse(workspace))
    of: Any = workspace
    try:
        if hasattr(workspace, "get_mlflow_tracking_uri"):
            address = _address(of.subscription_id, of.resource_group, of.name)
            auth = of._auth  # noqa: SLF001 - nothing public has it
            return Identity(address, lambda: _bearer(auth), of.get_mlflow_tracking_uri)
        if hasattr(workspace, "workspace_name"):
            address = _address(of.subscription_id, of.resource_group_name, of.workspace_name)
            credential = of._credential  # noqa: SLF001 - nothing public has it
            return Identity(
                address,
                lambda: _access_token(credential),
                lambda: str(of.workspaces.get(of.workspace_name).mlflow_tracking_uri),
            )
    except AttributeError as error:
        raise ValueError(f"workspace={workspace!r} is none that can be used: {error}") from None
    raise ValueError(
        f"workspace={workspace!r}: use autolog.workspace.from_config(), an "
        "azureml.core.Workspace, an azure.ai.ml.MLClient or a tracking URI"
    )


def _address(subscription: str | None, group: str | None, name: str | None) -> Workspace:
    if not (subscription and group and name):
        raise ValueError(
            f"workspace= has subscription {subscription}, resource group {group} and name {name}: "
            "an azure.ai.ml.MLClient names a workspace with workspace_name="
        )
    return Workspace(subscription, group, name)


def credential_here(uri: str) -> Callable[[], str] | None:
    """What gives tokens for a tracking URI, where that lives in this process only.

    The credential of an object of Azure's packages that gave the URI out, else that of a notebook,
    unless the environment has one for the workspace. What stands for a job's token is none of
    them: who sends renews that wherever Azure's packages fail to.
    """
    if not is_workspace(uri):
        return None
    auth = _registered(uri)
    is_of_job = type(auth).__name__ == _JOBS_AUTHENTICATION
    if hasattr(auth, "get_authentication_header") and not is_of_job:
        return lambda: _bearer(auth)
    if credentials.has_workspace_credential():
        return None
    # A chain may be the plugin's own, which ends in a browser; who sends has the other links too.
    if hasattr(auth, "get_token") and not hasattr(auth, "credentials"):
        return lambda: _access_token(auth)
    return notebook.credential()


def _registered(uri: str) -> Any:
    """What Azure's plugin for MLflow keeps with a URI: the credential of who gave it out."""
    plugin: Any = sys.modules.get("azureml.mlflow._internal.service_context_loader")
    loader = getattr(plugin, "_AzureMLServiceContextLoader", None)
    if loader is None or not loader.has_service_context(uri):
        return None
    return loader.get_service_context(uri).auth


def _access_token(credential: Any) -> str:
    return str(credential.get_token(_AUDIENCE).token)


def _bearer(auth: Any) -> str:
    header: str = auth.get_authentication_header()["Authorization"]
    return header.removeprefix("Bearer ")
