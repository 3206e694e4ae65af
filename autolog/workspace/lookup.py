"""Asks for the host of a workspace: in another process, and not for longer than a deadline."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from autolog import launch

SECONDS = 20.0


def full_uri(environ: Mapping[str, str]) -> str:
    """The MLFLOW_TRACKING_URI of an environment, which names a workspace, with its host.

    Raises `ValueError` where the workspace does not tell it within 20 s.
    """
    try:
        asked = subprocess.run(
            launch.command("autolog.exporters.azure_host"),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise ValueError(str(error)) from error
    if asked.returncode != 0:
        raise ValueError((asked.stderr.strip().splitlines() or ["no answer"])[-1])
    return asked.stdout.strip()
