"""Uploads files, in the process of the slow lane.

By MLflow's own repositories, for which this is the only part of the shipping half that imports
mlflow where the server is reached over HTTP; to a workspace of Azure ML without it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from autolog import bandwidth, launch, settings
from autolog.artifacts import Upload
from autolog.exporters import Rejected
from autolog.workspace.address import Workspace, is_workspace

Problem = tuple[str, bool]
"""Why a file is not stored, empty when it is; and whether that is final."""
_FINAL = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")


def main() -> None:
    """Upload what standard input asks for, a JSON line each, and answer each with a line."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(19)  # a file can wait, and mlflow alone takes seconds of a processor to load
    replies = sys.stdout
    sys.stdout = sys.stderr
    environ = settings.environment()
    uri = environ["MLFLOW_TRACKING_URI"]
    send = _to_workspace(uri, environ) if is_workspace(uri) else _by_mlflow()
    chosen, _ = settings.resolve({}, environ)
    if chosen.upload_mb_per_second is not None:
        bandwidth.limit(chosen.upload_mb_per_second * 1e6)
    for line in launch.asked():
        upload, token = json.loads(line)
        replies.write(json.dumps(send(Upload(*upload), token)) + "\n")
        replies.flush()


def _by_mlflow() -> Callable[[Upload, str | None], Problem]:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()

    def send(upload: Upload, _: str | None) -> Problem:
        try:
            settings.await_storing(Path(upload.file).stat().st_size)
            client.log_artifact(upload.run_id, upload.file, upload.folder or None)
        except MlflowException as error:
            return str(error), error.error_code in _FINAL
        except Exception as error:  # noqa: BLE001 - repositories raise what their clients raise
            return f"{type(error).__name__}: {error}", False
        return "", True

    return send


def _to_workspace(uri: str, environ: Mapping[str, str]) -> Callable[[Upload, str | None], Problem]:
    from autolog.exporters.azureml import AzureExporter

    given: list[str] = []
    """The token that came with the present file."""
    own = AzureExporter(Workspace.parse(uri), environ)
    theirs = AzureExporter(Workspace.parse(uri), environ, lambda: given[0])

    def send(upload: Upload, token: str | None) -> Problem:
        given[:] = [token] if token else []
        file = Path(upload.file)
        path = f"{upload.folder}/{file.name}" if upload.folder else file.name
        try:
            (theirs if token else own).upload(upload.run_id, file, path)
        except Rejected as error:
            return error.reason, True
        except Exception as error:  # noqa: BLE001 - a file that is gone, a service that is not there
            return f"{error}", False
        return "", True

    return send
