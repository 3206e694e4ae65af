"""Asks whether a target can be used: in another process, and not for longer than a deadline.

The training process loads neither requests nor mlflow for it, and no library can hold it up.
"""

from __future__ import annotations

from collections.abc import Mapping

from autolog import launch


def problem_of(environ: Mapping[str, str], token: str = "") -> str:
    """Why the MLFLOW_TRACKING_URI of an environment cannot be used; empty when it can.

    Takes 20 s at most. `token` is for where the environment has no credential.
    """
    try:
        return launch.answer("autolog.exporters.probe", environ, token=token)
    except launch.NoAnswer as silence:
        return str(silence)
