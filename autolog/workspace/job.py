"""The token of a job, kept fresh where other code of its process takes it from.

That is the environment, for what is started later and for MLflow's client when it is first used;
and Azure's packages, which renew what they took there, but hours late in some time zones.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from datetime import datetime, timezone
from typing import Any

from autolog import credentials, guard, launch
from autolog.workspace.address import is_workspace
from autolog.workspace.bearer import expiry

_EARLIEST = 300.0
"""Seconds before its end that a token is replaced, or a third of its life where that is less."""
_LEAST_PAUSE, _PAUSE_WITHOUT = 1.0, 60.0
_THREAD = "autolog-job-token"
_PACKAGES = (
    "azureml.mlflow._common._authentication.azureml_token_authentication",
    "azureml.core.authentication",
)


def keep_fresh(uri: str) -> None:
    """Renew the token of this process's job from now on, in a daemon thread; twice is once.

    Each time by a process of its own, which takes 20 s at most.
    Does nothing outside of a job, and where the tracking URI names no workspace.
    """
    is_kept = any(thread.name == _THREAD for thread in threading.enumerate())
    if is_kept or not is_workspace(uri):
        return
    with contextlib.suppress(ValueError):
        expiry(credentials.job_token() or "")
        threading.Thread(target=_keep, args=(uri,), name=_THREAD, daemon=True).start()


def _keep(uri: str) -> None:
    while True:
        time.sleep(_pause())
        with guard.shield("job token", firm=True), contextlib.suppress(launch.NoAnswer):
            environ = credentials.shipper_environment(uri)
            token = launch.answer("autolog.exporters.azure_renewal", environ)
            credentials.renew_job_token(token)
            _tell_packages(token)


def _pause() -> float:
    """Seconds until the next try; one that fails is followed by more of them before the end."""
    left = expiry(credentials.job_token() or "") - time.time()
    return max(_LEAST_PAUSE, left - min(_EARLIEST, left / 3)) if left > 0 else _PAUSE_WITHOUT


def _tell_packages(token: str) -> None:
    end = datetime.fromtimestamp(expiry(token), timezone.utc).replace(tzinfo=None)
    for package in filter(None, map(sys.modules.get, _PACKAGES)):
        authentication: Any = package.AzureMLTokenAuthentication
        for auth in list(authentication._registered_auth.values()):  # noqa: SLF001 - its own
            # Its set_token() may write the token to a file.
            auth._aml_access_token, auth._expiry_time = token, end  # noqa: SLF001
