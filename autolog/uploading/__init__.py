"""Uploads files and models, in the process of the slow lane.

By MLflow's own repositories, for which this is the only part of the shipping half that imports
mlflow where the server is reached over HTTP; to a workspace of Azure ML without it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from autolog import bandwidth, environment, launch, settings
from autolog.artifacts import Outcome, Upload
from autolog.exporters import Rejected, Retryable
from autolog.records import Kind
from autolog.uploading.spooled import Registration, SpooledModel
from autolog.workspace.address import is_workspace


class Repository(Protocol):
    """Where the files of runs are. Every call may raise `Retryable` and `Rejected`."""

    def log_file(self, run_id: str, file: Path, path: str) -> None:
        """Store a file in a run, under a path there."""

    def log_model(self, run_id: str, model: SpooledModel) -> None:
        """Store a model of a run; safe to call again."""

    def register_model(self, run_id: str, wanted: Registration) -> None:
        """Make a version in the model registry of a run's newest model, unless it is there.

        Raises `Rejected` where the run has none.
        """


def main() -> None:
    """Upload what standard input asks for, a JSON line each, and answer each with a line."""
    with contextlib.suppress(OSError, AttributeError):
        os.nice(19)  # a file can wait, and mlflow alone takes seconds of a processor to load
    replies = sys.stdout
    sys.stdout = sys.stderr
    repository_for = _repositories()
    chosen, _ = settings.resolve({}, environment.variables())
    if chosen.upload_mb_per_second is not None:
        bandwidth.limit(chosen.upload_mb_per_second * 1e6)
    for line in launch.asked():
        upload, token = json.loads(line)
        outcome = _sent(partial(repository_for, token), Upload(*upload))
        replies.write(json.dumps(outcome) + "\n")
        replies.flush()


def _repositories() -> Callable[[str | None], Repository]:
    """What gives the repository of this process's target, for the token that came with a file."""
    environ = environment.variables()
    uri = environ["MLFLOW_TRACKING_URI"]
    if is_workspace(uri):
        from autolog.uploading.workspace import WorkspaceRepository

        return WorkspaceRepository(uri, environ).with_token
    from autolog.uploading.tracking import TrackingRepository

    repository = TrackingRepository()
    return lambda _: repository


def _sent(open_repository: Callable[[], Repository], upload: Upload) -> Outcome:
    try:
        _send(open_repository(), upload)
    except Rejected as refusal:
        return Outcome(refusal.reason)
    except Retryable as problem:
        return _later(problem)
    except Exception as error:  # noqa: BLE001 - repositories raise what their clients raise
        return _later(Retryable(f"{type(error).__name__}: {error}"))
    return Outcome()


def _later(problem: Retryable) -> Outcome:
    return Outcome(problem.reason, False, problem.is_unauthorized, problem.after)


def _send(repository: Repository, upload: Upload) -> None:
    file = Path(upload.file)
    if upload.kind == Kind.MODEL:
        repository.log_model(upload.run_id, SpooledModel.read(file, upload.path))
    elif upload.kind == Kind.REGISTRATION:
        repository.register_model(upload.run_id, Registration.read(file, upload.path))
    else:
        repository.log_file(upload.run_id, file, upload.path)
