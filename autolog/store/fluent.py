"""A run of ours is MLflow's active run, wherever MLflow has none of its own in this thread."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import mlflow
from mlflow.tracking import fluent
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from autolog import guard, hooks, recorder
from autolog.recorder import Run
from autolog.store import entities
from autolog.store.asking import await_id

_SEES_OURS = frozenset(["active_run", "_get_or_start_run", "end_run"])

_is_on = False


def install(module: ModuleType) -> None:
    """Replace what tells and ends the active run; names that MLflow looks up at each call."""
    global _is_on
    _is_on = recorder.get().shows_in_mlflow = True
    for owner, name, make in _places(module):
        hooks.wrap(owner, name, make)
    if _note_end not in recorder.get().on_end:
        recorder.get().on_end.append(_note_end)
    atexit.register(_at_exit)


def remove() -> None:
    """Put it back."""
    global _is_on
    _is_on = recorder.get().shows_in_mlflow = False
    for owner, name, _ in _places(mlflow):
        hooks.unwrap(owner, name)
    if _note_end in recorder.get().on_end:
        recorder.get().on_end.remove(_note_end)
    atexit.unregister(_at_exit)


def _places(module: ModuleType) -> list[tuple[ModuleType, str, Callable[[Any], Any]]]:
    return [
        (fluent, "_active_run_stack", _Stack),
        (fluent, "start_run", _start_run),
        (module, "start_run", _start_run),
    ]


class _Stack:
    """MLflow's stack of active runs, on which a run of ours shows where it is empty.

    Replaced is what MLflow's functions look at, not the functions: those are imported by name
    here and there, long before we come. ``start_run`` does not see ours, since it would refuse to
    start another one.
    """

    def __init__(self, original: Any) -> None:
        self._original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def get(self) -> list[Any]:
        """The runs that are active in this thread."""
        own: list[Any] = self._original.get()
        asks: Any = sys._getframe(1)  # noqa: SLF001 - no argument says it
        is_exit = asks.f_back is not None and asks.f_back.f_code.co_name == "_safe_end_run"
        if own or is_exit or asks.f_code.co_name not in _SEES_OURS:
            return own
        run = _ours()
        if run is None:
            return own
        if asks.f_code.co_name == "active_run" and not _is_mlflow(asks.f_back):
            with guard.shield("mlflow.active_run"):
                await_id(run)  # a program may keep the id
        return [mlflow.ActiveRun(entities.of(run))]


def _ours() -> Run | None:
    """The run of ours that is current here."""
    if _is_on:
        with guard.shield("mlflow.active_run"):
            return recorder.get().own_run()
    return None


def _is_mlflow(frame: Any) -> bool:
    return frame is None or str(frame.f_globals.get("__name__")).partition(".")[0] == "mlflow"


def _note_end(run: Run) -> None:
    """Have ``mlflow.last_active_run()`` find a run of ours."""
    if run.status is not None:
        fluent._last_active_run_id.set(run.run_id or run.key)  # noqa: SLF001


def _mlflows_own() -> Any:
    """The runs that MLflow itself has open in this thread."""
    return fluent._active_run_stack.get()  # noqa: SLF001 - no public way


def _at_exit() -> None:
    """What MLflow does at exit as well, but before our own exit counts what is pending."""
    if _mlflows_own():
        fluent._safe_end_run()  # noqa: SLF001


def _start_run(original: Callable[..., Any]) -> Callable[..., Any]:
    def start_run(*args: Any, **kwargs: Any) -> Any:
        run = _ours() if kwargs.get("nested") and not _mlflows_own() else None
        if run is not None:
            parent = {MLFLOW_PARENT_RUN_ID: entities.of(run).info.run_id}
            kwargs["tags"] = {**parent, **(kwargs.get("tags") or {})}
        return original(*args, **kwargs)

    return start_run
