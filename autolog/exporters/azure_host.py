"""Answers `autolog.workspace.lookup`: the tracking URI of a workspace, with its host."""

from __future__ import annotations

import sys

from autolog import environment
from autolog.exporters.azureml import AzureExporter
from autolog.exporters.bearer import sent_here
from autolog.workspace.address import Workspace


def main() -> None:
    """Print it; exit with the reason where it cannot be had."""
    environ = environment.variables()
    workspace = Workspace.parse(environ["MLFLOW_TRACKING_URI"])
    exporter = AzureExporter(workspace, environ, sent_here())
    sys.stdout.write(exporter.uri)
