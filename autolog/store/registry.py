"""How the clients of this process are given proxies: MLflow's registry of stores hands them out."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

from mlflow.tracking._tracking_service import utils

from autolog import guard, hooks, recorder
from autolog.store.proxy import StoreProxy
from autolog.store.workspaces import WorkspaceStore
from autolog.workspace.address import is_workspace

_is_on = False
_proxies: weakref.WeakKeyDictionary[Any, StoreProxy] = weakref.WeakKeyDictionary()
_of_workspace = cache(WorkspaceStore)


def install() -> None:
    """Have the registry of this process hand out proxies; it is asked at every call."""
    global _is_on
    _is_on = True
    hooks.wrap(utils._tracking_store_registry, "get_store", _proxied)  # noqa: SLF001 - no public one


def remove() -> None:
    """Have it hand out the stores themselves."""
    global _is_on
    _is_on = False
    hooks.unwrap(utils._tracking_store_registry, "get_store")  # noqa: SLF001
    _of_workspace.cache_clear()
    recorder.get().known.leave()  # their ends go to the server itself from here on


def _proxied(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_store(store_uri: Any = None, artifact_uri: Any = None) -> Any:
        if not _is_on:
            return original(store_uri, artifact_uri)
        uri = str(utils._resolve_tracking_uri(store_uri))  # noqa: SLF001
        if is_workspace(uri):
            store = _of_workspace(uri, original)
        else:
            store = original(store_uri, artifact_uri)
        with guard.shield("mlflow.store"):
            proxy = _proxies.get(store)
            if proxy is None:
                proxy = _proxies[store] = StoreProxy(store, uri)
            return proxy
        return store

    return get_store
