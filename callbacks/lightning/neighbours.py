"""Other loggers that bring a training to MLflow: theirs is the run, and ours adds to it.

Two are known: Lightning's ``MLFlowLogger``, and the callback of ``mlflow.pytorch.autolog()``.
Both have their run before a trainer starts, so asking for it asks no server.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from autolog.callbacks.lightning.facts import hyper_parameters, logged_metrics, stopping_params
from autolog.callbacks.lightning.spaces import callbacks_of, loaded_classes
from autolog.recorder import SharedRun

if TYPE_CHECKING:
    from collections.abc import Mapping

_MLFLOWS_CALLBACK: Final = ("mlflow.pytorch._lightning_autolog", "__MlflowPLCallback")
_MLFLOWS_NAMES: Final = frozenset({"epochs", "optimizer_name", "Mode", "model_summary.txt"})
_MLFLOWS_OUTCOMES: Final = frozenset(
    {"stopped_epoch", "restored_epoch", "best_score", "wait_count"}
)


class Neighbour(NamedTuple):
    """Another logger of the same training."""

    run: SharedRun
    prefix: str
    """Before the names of what it takes from Lightning."""
    names: frozenset[str]
    """Params, outcomes, tags and files that it logs."""
    logged: Mapping[str, object]
    """What Lightning has given to loggers, live."""

    def leaves(self, given: Mapping[str, object]) -> dict[str, object]:
        """What of something that we collected it does not log itself."""
        return {name: value for name, value in given.items() if name not in self.names}

    def leaves_metrics(self, given: Mapping[str, object], prefix: str) -> dict[str, object]:
        """What of something that came to a logger it does not log itself.

        A prefix of its own says that the logger's names are wanted beside.
        """
        if prefix not in ("", self.prefix):
            return dict(given)
        known = self.logged.keys() | {"epoch"}
        return {name: value for name, value in given.items() if name not in known}


def find(trainer: Any) -> Neighbour | None:
    """The neighbour of a trainer whose loggers and callbacks are set up, if it has one."""
    logged = logged_metrics(trainer)
    kinds = loaded_classes("loggers", "MLFlowLogger")
    loggers: list[Any] = trainer.loggers
    for logger in loggers:
        if isinstance(logger, kinds) and logger.run_id is not None:
            run = SharedRun(logger.run_id, logger.experiment.tracking_uri)
            prefix = f"{logger._prefix}-" if logger._prefix else ""  # noqa: SLF001
            names = frozenset(hyper_parameters(trainer, trainer.lightning_module))
            return Neighbour(run, prefix, names, logged)
    for callback in trainer.callbacks:
        if _is_mlflows(callback):
            return Neighbour(SharedRun(callback.run_id, None), "", _mlflows_names(trainer), logged)
    return None


def logs_models(trainer: Any) -> bool:
    """Whether ``mlflow.pytorch.autolog()`` logs the trained module."""
    utils = sys.modules.get("mlflow.utils.autologging_utils")
    is_there = any(_is_mlflows(callback) for callback in trainer.callbacks)
    return is_there and bool(utils and utils.get_autologging_config("pytorch", "log_models", True))


def _is_mlflows(callback: object) -> bool:
    return (type(callback).__module__, type(callback).__name__) == _MLFLOWS_CALLBACK


def _mlflows_names(trainer: Any) -> frozenset[str]:
    """What MLflow's callback logs; of Lightning's callbacks it knows those of one name space."""
    names = _MLFLOWS_NAMES
    for optimizer in trainer.optimizers[:1]:
        names |= optimizer.defaults.keys()
    for stopping in callbacks_of(trainer, "EarlyStopping"):
        if type(stopping).__module__.startswith("pytorch_lightning."):
            names |= stopping_params(stopping).keys() | _MLFLOWS_OUTCOMES
    return names
