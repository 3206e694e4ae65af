"""Answers `autolog.workspace.job`: the next token of a job."""

from __future__ import annotations

import sys

from autolog import environment
from autolog.exporters.azureml import AzureExporter
from autolog.workspace.address import Workspace


def main() -> None:
    """Print it; exit with the reason where it cannot be had."""
    environ = environment.variables()
    exporter = AzureExporter(Workspace.parse(environ["MLFLOW_TRACKING_URI"]), environ)
    exporter.refuse_token()  # however long the present one lives
    sys.stdout.write(exporter.token())
