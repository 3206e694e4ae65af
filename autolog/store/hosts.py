"""The tracking URI of a workspace that MLflow's own client can use."""

from __future__ import annotations

from functools import cache

from autolog import credentials, recorder, targets
from autolog.workspace.address import lacks_host
from autolog.workspace.identity import credential_here
from autolog.workspace.lookup import full_uri


def usable(uri: str) -> str:
    """The same URI, with the host of the workspace's region where it has none.

    Asks the workspace once a process, as MLflow's client is about to do, and has mlflow use the
    whole URI from then on, here without us and in child processes too. Where it does not answer,
    raises what its package or who was asked raises.
    """
    return _looked_up(uri) if lacks_host(uri) else uri


@cache
def _looked_up(uri: str) -> str:
    known = recorder.get().full_uris.get(uri)
    full = known() if known is not None else _asked(uri)
    targets.use_instead(uri, full)
    return full


def _asked(uri: str) -> str:
    token = credential_here(uri)
    environ = credentials.shipper_environment(uri, sends_tokens=token is not None)
    return full_uri(environ, token() if token else "")
