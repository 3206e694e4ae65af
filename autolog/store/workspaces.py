"""The tracking store of a workspace, as Azure's plugin for MLflow makes it; late, for that asks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from mlflow.exceptions import MlflowException

from autolog import hooks, targets
from autolog.store import hosts
from autolog.store.asking import ANSWER_SECONDS, CannotAsk, within

_CREDENTIAL = "get_host_creds"
_made: list[Any] = []


def remove() -> None:
    """Have the plugin's stores raise their own errors again."""
    for store in _made:
        hooks.unwrap(store, _CREDENTIAL)
    _made.clear()


class WorkspaceStore:
    """Stands for the plugin's store, which is made when something is first asked of it.

    To make one can take a question to the workspace, and a token, so that MLflow's own calls which
    only write must do without. Whatever goes wrong with either is a `CannotAsk`: each kind of
    credential has errors of its own.
    """

    def __init__(self, uri: str, make: Callable[[str], Any]) -> None:
        """`make` gives the store of a tracking URI that has a host."""
        self._uri, self._make = uri, make
        self._lock = threading.Lock()
        self._store: Any = None
        if targets.adopted_run_id() is not None:
            # The plugin knows a job by MLFLOW_RUN_ID, which MLflow is about to take away.
            with contextlib.suppress(TimeoutError, MlflowException):
                within(ANSWER_SECONDS, self._made)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._made(), name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """That of the store itself, by which MLflow tells stores apart."""
        return type(self._made())

    def shut_down_async_logging(self) -> None:
        """As the store's own; where there is none yet, nothing waits in it."""
        if self._store is not None:
            self._store.shut_down_async_logging()

    def _made(self) -> Any:
        with self._lock:
            if self._store is None:
                make = _with_its_errors(lambda: self._make(hosts.usable(self._uri)))
                self._store = make()
                hooks.wrap(self._store, _CREDENTIAL, _with_its_errors)
                _made.append(self._store)
        return self._store


def _with_its_errors(call: Callable[..., Any]) -> Callable[..., Any]:
    """A call whose every error is one that MLflow's callers, and ours, know."""

    def told(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except MlflowException:
            raise
        except Exception as error:
            raise CannotAsk(f"the workspace cannot be asked: {error}") from error

    return told
