"""MLflow's own logging of the same fit: it keeps what it logs, and ours adds the rest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from autolog import recorder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from autolog.recorder import Training

T = TypeVar("T")

SUMMARY = "model_summary.txt"
_STOPPING = "monitor min_delta patience baseline restore_best_weights stopped_epoch restored_epoch"


class Neighbour(NamedTuple):
    """What MLflow logs into the run of a fit."""

    names: frozenset[str] = frozenset()
    """Params, outcomes and files."""
    logs_epochs: bool = False
    """Whether it logs all that Keras reports at the end of an epoch."""
    logs_models: bool = False
    """Whether it logs the trained model."""
    logs_datasets: bool = False
    """Whether it logs what the fit is given."""

    def leaves(self, given: Mapping[str, T]) -> dict[str, T]:
        """What of something that we collected it does not log itself."""
        return {name: value for name, value in given.items() if name not in self.names}

    def leaves_of_epoch(self, given: Mapping[str, T], reported: Collection[str]) -> dict[str, T]:
        """The same of an epoch's metrics, some of which Keras reported."""
        return {k: v for k, v in given.items() if not (self.logs_epochs and k in reported)}


def find(
    training: Training, *, callbacks: Iterable[Any], arguments: Iterable[str], model: Any
) -> Neighbour:
    """Whoever logs the fit too: ``mlflow.<flavor>.autolog()``, or a callback of MLflow's.

    `callbacks` and `arguments` are those of the fit.
    """
    if training.run is None or not recorder.get().may_be_mlflows(training.run):
        return Neighbour()  # MLflow's calls go to another run
    utils = sys.modules.get("mlflow.utils.autologging_utils")
    for flavor in ("tensorflow", "keras"):  # where both are on, the first logs
        if utils is not None and not utils.autologging_is_disabled(flavor):
            every_epoch = utils.get_autologging_config(flavor, "log_every_epoch", True)
            stopping = _STOPPING.split() if flavor == "tensorflow" else ()
            names = {*_names_of_callback(flavor, model), *arguments, *stopping}
            models = utils.get_autologging_config(flavor, "log_models", True)
            datasets = utils.get_autologging_config(flavor, "log_datasets", True)
            return Neighbour(frozenset(names), every_epoch, models, datasets)
    for callback in callbacks:
        package, _, rest = type(callback).__module__.partition(".")
        if package == "mlflow" and type(callback).__name__ == "MlflowCallback":
            names = _names_of_callback(rest.partition(".")[0], model)
            return Neighbour(frozenset(names), callback.log_every_epoch)
    return Neighbour()


def _names_of_callback(flavor: str, model: Any) -> set[str]:
    prefix = "opt" if flavor == "tensorflow" else "optimizer"
    config = {} if model.optimizer is None else model.optimizer.get_config()
    return {SUMMARY, *(f"{prefix}_{key}" for key in config)}
