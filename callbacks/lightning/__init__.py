"""PyTorch Lightning, as ``lightning.pytorch`` and as ``pytorch_lightning``: each fit is a run.

Logged of a fit:

* ``epoch_loss``, step = epoch: the mean over the samples of an epoch of what ``training_step``
  returned, whether or not the module logs anything. Under manual optimisation, where it returned
  nothing, of the sum of what went through ``manual_backward`` in that batch;
* what the module and the callbacks log, under the names and at the steps that Lightning gives to
  its loggers, whichever loggers the trainer has;
* with ``log_every_n_steps=N`` of autolog also ``batch_loss`` at every N-th ``global_step``;
* params: ``save_hyperparameters`` of module and data module, ``epochs``, ``batch_size``,
  ``optimizer_name`` and its hyper-parameters under torch's names (of a second optimizer with
  ``.1`` behind), ``precision``, ``accumulate_grad_batches``, ``gradient_clip_val``.

The run opens when training starts: the sanity check, the tuner and ``fast_dev_run`` leave nothing.
A ``validate`` or ``test`` that logs something outside a fit is a run of its own.

In every form an `AutologLogger` takes what Lightning gives to loggers, and an observer among the
callbacks does the rest. Under ``enable()`` both join the trainer for the time of one call.

===========  =================================================================
`logger`     `AutologLogger`, and the run behind it
`observer`   the callback: losses and params
`guest`      how both join a trainer, and leave it, under ``enable()``
===========  =================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from autolog import hooks
from autolog.callbacks.lightning.guest import Guest
from autolog.callbacks.lightning.logger import AutologLogger

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

__all__ = ["AutologLogger", "instrument", "uninstrument"]

_METHODS: Final = ("fit", "validate", "test", "predict")

_instrumented: list[type] = []
"""Trainer classes whose trainers we join."""


def instrument(module: ModuleType) -> None:
    """Log what the trainers of `module` run, those made before included; twice is once."""
    trainer_class = module.Trainer
    for name in _METHODS:
        hooks.wrap(trainer_class, name, _joined)
    if trainer_class not in _instrumented:
        _instrumented.append(trainer_class)


def uninstrument() -> None:
    """Put the methods of every ``Trainer`` back."""
    for trainer_class in _instrumented:
        for name in _METHODS:
            hooks.unwrap(trainer_class, name)
    _instrumented.clear()


def _joined(original: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(self, tuple(_instrumented)):
            return original(self, *args, **kwargs)
        with Guest(self):
            return original(self, *args, **kwargs)

    return method
