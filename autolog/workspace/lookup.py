"""Asks for the host of a workspace: in another process, and not for longer than a deadline."""

from __future__ import annotations

from collections.abc import Mapping

from autolog import launch


def full_uri(environ: Mapping[str, str], token: str = "") -> str:
    """The MLFLOW_TRACKING_URI of an environment, which names a workspace, with its host.

    `token` is for where the environment has no credential.
    Raises `autolog.launch.NoAnswer` where the workspace does not tell it within 20 s.
    """
    return launch.answer("autolog.exporters.azure_host", environ, token=token)
