"""Asks for the host of a workspace: in another process, and not for longer than a deadline."""

from __future__ import annotations

from collections.abc import Mapping

from autolog import launch

SECONDS = 20.0


def full_uri(environ: Mapping[str, str]) -> str:
    """The MLFLOW_TRACKING_URI of an environment, which names a workspace, with its host.

    Raises `ValueError` where the workspace does not tell it within 20 s.
    """
    return launch.ask("autolog.exporters.azure_host", environ, SECONDS)
