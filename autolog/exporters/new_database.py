"""Has MLflow make the tables of a sqlite file, in a process that takes MLflow away with it."""

from __future__ import annotations

import os
import sys

from autolog import environment
from autolog.exporters import Rejected, Retryable
from autolog.exporters.store import StoreExporter


def main() -> None:
    """Print why not; nothing when all is well."""
    try:
        StoreExporter(environment.variables()["MLFLOW_TRACKING_URI"]).check()
    except (Retryable, Rejected) as error:
        sys.stdout.write(error.reason)
    sys.stdout.flush()
    # To take MLflow apart in order takes a second more of the processor; all is on the disk.
    os._exit(0)
