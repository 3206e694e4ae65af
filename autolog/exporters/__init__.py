"""Where batches go: the exporters, and the ways in which a server says no."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from autolog.values import without_permissions
from autolog.workspace.address import Workspace, is_workspace

if TYPE_CHECKING:
    from autolog.batching import Batch, Limits
    from autolog.records import RunStart


class Retryable(Exception):
    """Not stored now, perhaps later: unreachable, busy, not authorised, or no MLflow at all.

    `reason` can be shown and stored: see `without_permissions`. `after` is the wait in seconds the
    server asked for. `is_unauthorized` is True when another credential is wanted. `status` is that
    of the reply, None where there was none. `suspect` is True when what was sent may be the cause
    (a 500): MLflow answers that for passing trouble and for some content it chokes on, and only who
    sees other requests succeed can tell the two apart.
    """

    def __init__(
        self,
        reason: str,
        after: float | None = None,
        *,
        suspect: bool = False,
        is_unauthorized: bool = False,
        status: int | None = None,
    ) -> None:
        self.reason = without_permissions(reason)
        super().__init__(self.reason)
        self.after = after
        self.suspect = suspect
        self.is_unauthorized = is_unauthorized
        self.status = status


class Rejected(Exception):
    """This batch can never be stored as it is; some part of it may be.

    `reason` is as that of `Retryable`. `limit` is the largest number of items the server said it
    takes; `code` is MLflow's error code.
    """

    def __init__(self, reason: str, limit: int | None = None, *, code: str | None = None) -> None:
        self.reason = without_permissions(reason)
        super().__init__(self.reason)
        self.limit = limit
        self.code = code


class RunRefused(Exception):
    """The run itself is refused: unknown, deleted, or its experiment is."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TagsRefused(Exception):
    """A run was created, but with none of the tags that it was to begin with: one is refused."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id} begins without tags")
        self.run_id = run_id


class Exporter(Protocol):
    """One tracking server. Every call may block, and raise `Retryable` or `RunRefused`."""

    @property
    def limits(self) -> Limits:
        """What one batch may hold."""

    def open_run(self, start: RunStart, parent_id: str | None) -> str:
        """The server's id of a run, which is created unless it is there; safe to call again.

        An adopted run is used as it is. Otherwise the run is the one whose tag `autolog.run_key` is
        the key, else a new one; an experiment that is absent is created. Raises `TagsRefused` too.
        """

    def export(self, batch: Batch) -> None:
        """Store a batch; on return it is stored. Raises `Rejected` too.

        Threads may call it side by side, as many as `limits` has requests.
        """

    def log_inputs(self, run_id: str, content: str) -> None:
        """Store what a run used: see `Inputs`; safe to call again. Raises `Rejected` too."""

    def end_run(self, run_id: str, status: str, timestamp: int | None) -> None:
        """Set a run's status and, where given, its end in ms of the epoch; safe to call again."""

    def check(self) -> None:
        """Ask for something small, to see whether the server can be used; raises `Rejected` too."""

    def token(self) -> str | None:
        """The token that files go with; None where the environment is credential enough."""

    def refuse_token(self) -> None:
        """The server has refused that token to who uploads: the next one is another."""

    def tend(self) -> None:
        """Do what is due by the clock; called about once a second, with or without batches."""

    def close(self) -> None:
        """Give back connections."""


def exporter_for(
    target: str,
    environ: Mapping[str, str],
    *,
    use_saved: bool = True,
    token: Callable[[], str] | None = None,
) -> Exporter:
    """The exporter for an MLflow tracking URI; connects to nothing yet.

    `use_saved` False leaves out the credentials that are saved in the user's files. `token` gives
    fresh tokens for a workspace, where the environment is not to.

    HTTP(S) and workspaces of Azure ML go without mlflow, unless the environment asks for one of its
    authentication plugins, and so does a sqlite file; every other URI goes through the store that
    mlflow resolves it to.
    """
    if is_workspace(target):
        from autolog.exporters.azureml import AzureExporter

        return AzureExporter(Workspace.parse(target), environ, token)
    if target.lower().startswith(("http://", "https://")) and not _needs_plugin(environ):
        from autolog.exporters.rest import RestExporter, credentials

        home = Path.home() if use_saved else None
        return RestExporter(target, partial(credentials, environ, home))
    from autolog.exporters.local import LocalExporter, is_plain
    from autolog.exporters.store import StoreExporter

    return LocalExporter(target, environ) if is_plain(target, environ) else StoreExporter(target)


def _needs_plugin(environ: Mapping[str, str]) -> bool:
    signs = environ.get("MLFLOW_TRACKING_AWS_SIGV4", "").lower() in ("true", "1")
    return signs or bool(environ.get("MLFLOW_TRACKING_AUTH"))


_BUSY = frozenset({401, 403, 408, 429, 502, 503, 504})


def refusal(
    status: int, code: str | None, reason: str, after: float | None = None
) -> Retryable | Rejected:
    """The exception for an HTTP status and MLflow's error code; None: the words are not MLflow's.

    A 400 or 404 without an error code is from a proxy or from something else at that address: the
    data are kept. 413 is final from anyone.
    """
    from_mlflow = code is not None and code != "ENDPOINT_NOT_FOUND"
    if status == 413 or (status in (400, 404) and from_mlflow):
        limit = re.search(r"\bLimit=(\d{1,9})\b", reason)
        return Rejected(reason, int(limit[1]) if limit else None, code=code)
    suspect = status == 500 or (from_mlflow and status not in _BUSY)
    is_unauthorized = status in (401, 403)
    return Retryable(reason, after, suspect=suspect, is_unauthorized=is_unauthorized, status=status)
