"""Where a run goes that starts now: MLflow's own rules, without MLflow."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from autolog.environment import export, run_id_of_job, variables
from autolog.settings import Origin

_TRACKING_URI = "MLFLOW_TRACKING_URI"
_EXPERIMENT_NAME, _EXPERIMENT_ID = "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"
_RUN_ID = "MLFLOW_RUN_ID"
_PROMISE = "autolog-experiment:"
_PLATFORMS = ("databricks", "databricks-uc", "uc")
"""Tracking URIs of MLflow that are neither a path nor have a scheme."""


@dataclass(frozen=True, slots=True)
class Target:
    """An MLflow tracking URI made absolute, with the experiment that new runs go to."""

    uri: str
    experiment: str | None = None
    experiment_id: str | None = None

    @property
    def public_uri(self) -> str:
        """The URI without user name and password: what may stand on disk and on a terminal."""
        return without_userinfo(self.uri)

    @property
    def is_local(self) -> bool:
        """True when no network stands between us and the store."""
        return is_local(self.uri)


def is_local(uri: str) -> bool:
    """True for an absolute tracking URI of a folder or a database file on this machine."""
    return urlsplit(uri).scheme in ("file", "sqlite")


def without_userinfo(uri: str) -> str:
    """A URI without its user name and password."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def current(experiment: str | None = None) -> Target:
    """Where a run that starts now goes.

    What ``mlflow.set_tracking_uri`` and ``set_experiment`` set in this process, else the
    environment, else MLflow's own default rule. No network call, no import of mlflow.
    """
    uri = absolute(str(tracking_uri().value))
    if experiment:
        return Target(uri, experiment)
    chosen, origin = active_experiment()
    if chosen is None:
        return Target(uri)
    if origin == _EXPERIMENT_NAME:
        return Target(uri, str(chosen))
    return Target(uri, *name_and_id(str(chosen)))


def promised_id(name: str) -> str:
    """What stands for the id of an experiment while the server does not answer for it."""
    return f"{_PROMISE}{name}"


def name_and_id(experiment_id: str) -> tuple[str | None, str | None]:
    """The name of an experiment with a `promised_id`, else the id: the other one is None."""
    if experiment_id.startswith(_PROMISE):
        return experiment_id.removeprefix(_PROMISE), None
    return None, experiment_id


def tracking_uri() -> Origin:
    """The tracking URI of mlflow in this process, as it was given."""
    mlflow, named = _mlflow(), variables().get(_TRACKING_URI)
    if mlflow is not None and mlflow.is_tracking_uri_set():
        chosen = mlflow.get_tracking_uri()
        return Origin(chosen, _TRACKING_URI if chosen == named else "mlflow.set_tracking_uri")
    return Origin(named, _TRACKING_URI) if named else Origin(_default_uri(), "mlflow's default")


def active_experiment() -> Origin:
    """The experiment of mlflow in this process: an id, or a name where that is its origin."""
    fluent = sys.modules.get("mlflow.tracking.fluent")
    for value, origin in (
        (getattr(fluent, "_active_experiment_id", None), "mlflow.set_experiment"),
        (variables().get(_EXPERIMENT_NAME), _EXPERIMENT_NAME),
        (variables().get(_EXPERIMENT_ID), _EXPERIMENT_ID),
    ):
        if value:
            return Origin(value, origin)
    return Origin(None, "mlflow's default")


def choose_tracking_uri(uri: str) -> None:
    """Have mlflow, here and in processes that start from now on, use a tracking URI."""
    export(_TRACKING_URI, uri)
    mlflow = _mlflow()
    if mlflow is not None:
        mlflow.set_tracking_uri(uri)


def choose_experiment(name: str) -> None:
    """Have mlflow, here and in processes that start from now on, use an experiment.

    By variable: ``mlflow.set_experiment`` would ask the server, and wait for it.
    """
    export(_EXPERIMENT_NAME, name)
    export(_EXPERIMENT_ID, None)
    fluent: Any = sys.modules.get("mlflow.tracking.fluent")
    if fluent is not None:
        fluent._active_experiment_id = None  # noqa: SLF001 - there is no public way to unset it


_first_names: dict[str, str] = {}


def use_instead(uri: str, other: str) -> None:
    """Have mlflow use another tracking URI of the same place; for us it keeps its first one."""
    if uri != other:
        _first_names[other] = uri
    if tracking_uri().value == uri:
        choose_tracking_uri(other)


def absolute(uri: str) -> str:
    """A tracking URI that means the same from every working directory."""
    if uri in _PLATFORMS:
        return uri
    if uri in _first_names:
        return _first_names[uri]
    parts = urlsplit(uri)
    if parts.scheme == "sqlite" and uri.startswith("sqlite:///"):
        return "sqlite:///" + str(Path(unquote(uri[len("sqlite:///") :])).absolute())
    if parts.scheme == "":
        return Path(uri).expanduser().absolute().as_uri()
    if parts.scheme == "file" and not parts.path.startswith("/"):
        return Path(uri.removeprefix("file:")).absolute().as_uri()
    return uri


def _default_uri() -> str:
    """MLflow's rule since 3.7: an existing ``./mlruns`` with experiments, else sqlite."""
    try:
        with os.scandir("mlruns") as entries:
            used = any(e.name.isdigit() and os.path.lexists(f"{e.path}/meta.yaml") for e in entries)
    except OSError:
        used = False
    return "mlruns" if used else "sqlite:///mlflow.db"


def adopted_run_id() -> str | None:
    """The run that the platform or the user named for this process, if any."""
    return variables().get(_RUN_ID) or run_id_of_job()


def uri_of_job() -> str | None:
    """The tracking URI that Azure ML gives to the job of this process."""
    return variables().get(_TRACKING_URI) if run_id_of_job() else None


def restore_job_run() -> None:
    """Have MLflow adopt the run of this process's job, as the first process of the job did.

    MLflow takes MLFLOW_RUN_ID out of the environment there, so that children do not have it.
    """
    run_id, fluent = run_id_of_job(), sys.modules.get("mlflow.tracking.fluent")
    last = getattr(fluent, "_last_active_run_id", None)
    if run_id and _RUN_ID not in variables() and (last is None or last.get() is None):
        export(_RUN_ID, run_id)


def mlflow_active_run_id() -> str | None:
    """The run that the user's own code has open in MLflow, if any."""
    fluent: Any = sys.modules.get("mlflow.tracking.fluent")
    # Not by mlflow.active_run(), which may name a run of ours.
    stack = getattr(fluent, "_active_run_stack", None)
    active = stack.get() if stack is not None else None
    return str(active[-1].info.run_id) if active else None


def run_name() -> str | None:
    """The name that the environment gives to new runs (``MLFLOW_RUN_NAME``)."""
    return variables().get("MLFLOW_RUN_NAME") or None


def _mlflow() -> Any:
    """The mlflow package if the user's program has imported it, else None."""
    module = sys.modules.get("mlflow")
    return module if hasattr(module, "active_run") else None
