"""MLflow's own logging of the same fit: it keeps what it logs, and ours adds the rest."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from autolog import recorder
from autolog.callbacks.sklearn import estimators

if TYPE_CHECKING:
    from autolog.recorder import Run


def makes_child_runs(run: Run, estimator: Any) -> bool:
    """Whether MLflow makes the child runs of a search that was fitted in a run."""
    return estimators.is_search_of_mlflows(estimator) and _logs_into(run)


def logs_models(run: Run, estimator: Any) -> bool:
    """Whether MLflow logs the fitted estimator: as scikit-learn's, or its own package's flavor."""
    flavors = ("sklearn", type(estimator).__module__.partition(".")[0])
    return any(_logs_into(run, flavor) and _config("log_models", flavor) for flavor in flavors)


def logs_data(run: Run, estimator: Any) -> bool:
    """Whether MLflow logs the data of a fit, as it does for the classes that it has wrapped."""
    if not _logs_into(run) or not _config("log_datasets"):
        return False
    method = getattr(type(estimator), "fit", None)
    while method is not None and not _is_mlflows(method):
        method = getattr(method, "__wrapped__", None)
    return method is not None


def logs_score(run: Run, estimator: Any) -> bool:
    """Whether MLflow logs what an estimator's ``score`` says, under a name of its own."""
    manager = _manager_of_scores(run)
    return manager is not None and manager.get_run_id_for_model(estimator) is not None


def logs_metric_of(run: Run, values: Iterable[Any]) -> bool:
    """Whether MLflow logs a metric of these values, where the call goes through its wrapper."""
    manager = _manager_of_scores(run)
    if manager is None:
        return False
    before_mlflow_3 = "get_run_id_and_dataset_name_for_metric_api_call"
    ask = getattr(manager, "get_info_for_metric_api_call", getattr(manager, before_mlflow_3, None))
    return ask is not None and ask(values, {})[0] is not None


def beneath(function: Any) -> Any:
    """The function of scikit-learn's that MLflow has wrapped; of any other the function itself."""
    while _is_mlflows(function):
        function = function.__wrapped__
    return function


def _is_mlflows(function: Any) -> bool:
    return str(getattr(function, "__globals__", {}).get("__name__")).startswith("mlflow.")


def _manager_of_scores(run: Run) -> Any:
    """Who in MLflow knows whose a prediction is; None where MLflow logs no scores."""
    if not _logs_into(run) or not _config("log_post_training_metrics"):
        return None
    return getattr(sys.modules.get("mlflow.sklearn"), "_AUTOLOGGING_METRICS_MANAGER", None)


def _logs_into(run: Run, flavor: str = "sklearn") -> bool:
    utils = sys.modules.get("mlflow.utils.autologging_utils")
    if utils is None or not recorder.get().may_be_mlflows(run):
        return False
    return not utils.autologging_is_disabled(flavor)


def _config(option: str, flavor: str = "sklearn") -> Any:
    utils = sys.modules["mlflow.utils.autologging_utils"]
    return utils.get_autologging_config(flavor, option, True)
