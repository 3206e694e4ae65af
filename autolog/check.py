"""Asks whether a target can be used: in another process, and not for longer than a deadline.

The training process loads neither requests nor mlflow for it, and no library can hold it up.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from autolog import launch

SECONDS = 20.0


def problem_of(environ: Mapping[str, str]) -> str:
    """Why the MLFLOW_TRACKING_URI of an environment cannot be used; empty when it can.

    Takes 20 s at most.
    """
    try:
        asked = subprocess.run(
            launch.command("autolog.exporters.probe"),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {SECONDS:.0f} s"
    except OSError as error:
        return f"no process can be started to ask it: {error}"
    if asked.returncode == 0:
        return asked.stdout.strip()
    return (asked.stderr.strip().splitlines() or ["the process that asked it died"])[-1]
