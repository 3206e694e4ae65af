"""What the user's own TensorBoard ``SummaryWriter`` is told goes into the open run as well.

As under MLflow's autologging of PyTorch: hyper-parameters with their metrics, and scalars at every
n-th step where ``log_every_n_steps`` says so. Where no run is open, nothing is logged; inside of
another framework's training its own hooks know more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from autolog import guard, hooks, recorder
from autolog.recorder import Run

__all__ = ["instrument", "uninstrument"]

_writers: list[type] = []


class _Thread(threading.local):
    is_inside = False
    """Of a call that is logged already: a writer hands metrics on to another one."""


_thread = _Thread()


def instrument(module: ModuleType) -> None:
    """Log what the writers of `module` are told; twice is once."""
    writer = module.SummaryWriter
    hooks.wrap(writer, "add_hparams", _add_hparams)
    hooks.wrap(writer, "add_scalar", _add_scalar)
    _writers.append(writer)


def uninstrument() -> None:
    """Put the writers back as they were."""
    while _writers:
        writer = _writers.pop()
        hooks.unwrap(writer, "add_hparams")
        hooks.unwrap(writer, "add_scalar")


def _run() -> Run | None:
    """The run that is open; None where nothing is to be logged."""
    here = recorder.get()
    is_silent = not _writers or _thread.is_inside or here.nesting.in_training or here.are_hooks_mute
    return None if is_silent else here.open_run()


def _add_hparams(original: Callable[..., Any]) -> Callable[..., Any]:
    def add_hparams(
        self: Any, hparam_dict: Any, metric_dict: Any, *args: Any, **kwargs: Any
    ) -> Any:
        with guard.shield("torch.summaries"):
            run = _run()
            if run is not None:
                run.log_hook_params(hparam_dict)
                run.log_hook_metrics(metric_dict, 0)
        _thread.is_inside = True
        try:
            return original(self, hparam_dict, metric_dict, *args, **kwargs)
        finally:
            _thread.is_inside = False

    return add_hparams


def _add_scalar(original: Callable[..., Any]) -> Callable[..., Any]:
    def add_scalar(
        self: Any, tag: str, scalar_value: Any, global_step: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        with guard.shield("torch.summaries"):
            run, every = _run(), recorder.get().settings.log_every_n_steps
            step = int(global_step or 0)
            if run is not None and every is not None and step % every == 0:
                run.log_hook_metrics({tag: scalar_value}, step)
        return original(self, tag, scalar_value, global_step, *args, **kwargs)

    return add_scalar
