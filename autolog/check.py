"""Asks whether a target can be used: in another process, and not for longer than a deadline.

The training process loads neither requests nor mlflow for it, and no library can hold it up.
"""

from __future__ import annotations

from collections.abc import Mapping

from autolog import launch

SECONDS = 20.0


def problem_of(environ: Mapping[str, str]) -> str:
    """Why the MLFLOW_TRACKING_URI of an environment cannot be used; empty when it can.

    Takes 20 s at most.
    """
    try:
        return launch.ask("autolog.exporters.probe", environ, SECONDS)
    except ValueError as error:
        return str(error)
