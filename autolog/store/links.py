"""Links to runs that MLflow prints: in a workspace they lead nowhere, and take a token to make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow.tracking._tracking_service.client import TrackingServiceClient

from autolog import hooks
from autolog.workspace.address import is_workspace

_NAME = "_log_url"


def install() -> None:
    """Have MLflow print those of other servers; the announcer says the studio's pages."""
    hooks.wrap(TrackingServiceClient, _NAME, _of_other_servers)


def remove() -> None:
    """Have it print all of them."""
    hooks.unwrap(TrackingServiceClient, _NAME)


def _of_other_servers(original: Callable[..., None]) -> Callable[..., None]:
    def _log_url(self: Any, run_id: str) -> None:
        if not is_workspace(str(self.tracking_uri)):
            original(self, run_id)

    return _log_url
