"""Artifacts of a run that has no place on the server yet wait in the journal."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from mlflow.tracking._tracking_service.client import TrackingServiceClient

from autolog import guard, hooks, recorder
from autolog.recorder import Run

_METHODS: Final = ("log_artifact", "log_artifacts")


def install() -> None:
    """Have MLflow's clients spool the files of such runs; those of others are MLflow's affair."""
    for name in _METHODS:
        hooks.wrap(TrackingServiceClient, name, _spooling)


def remove() -> None:
    """Put the clients back as they were."""
    for name in _METHODS:
        hooks.unwrap(TrackingServiceClient, name)


def _spooling(original: Callable[..., Any]) -> Callable[..., Any]:
    def log(self: Any, run_id: str, local: Any, artifact_path: str | None = None) -> Any:
        run = _without_place(run_id, self.store)
        if run is None:
            return original(self, run_id, local, artifact_path)
        if original.__name__ == "log_artifact" and os.path.isdir(local):  # noqa: PTH112
            name = os.path.basename(os.path.normpath(local))  # noqa: PTH119
            artifact_path = f"{artifact_path}/{name}" if artifact_path else name
        with guard.shield("mlflow.log_artifact"):
            run.files.log_artifact(local, artifact_path)
        return None

    return log


def _without_place(run_id: str, store: Any) -> Run | None:
    """A run that the server does not have yet, or of which it does not say where files go."""
    with guard.shield("mlflow.log_artifact"):
        run = recorder.get().known.find(run_id)
        if run is None or (run.run_id is not None and store.knows_place(run)):
            return None
        return run
    return None
