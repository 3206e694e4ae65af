"""PyTorch Lightning, as ``lightning.pytorch`` and as ``pytorch_lightning``: each fit is a run.

``docs/frameworks/lightning.md`` has what is logged, name by name, with its step.

In every form an `AutologLogger` takes what Lightning gives to loggers, and an observer among the
callbacks does the rest. Under ``enable()`` both join the trainer for the time of one call.

=============  ===============================================================
`logger`       `AutologLogger`: what Lightning asks a logger, and tells it
`observer`     the callback: losses, settings and outcomes
`guest`        how both join a trainer, and leave it, under ``enable()``
`runs`         which run a training goes into
`neighbours`   other loggers that bring the training to MLflow
`losses`       the losses of an epoch
`facts`        params, outcomes, the model's summary
`checkpoints`  which of them are logged, and which run each is from
`spaces`       the two name spaces
=============  ===============================================================
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
