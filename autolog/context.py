"""Where a run is started, as the tags that MLflow's own run context has for it.

Names, values and precedence are those of MLflow 3. What MLflow finds out with a process or a
request of its own is read here from files and from the environment.
"""

from __future__ import annotations

import functools
import getpass
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autolog import environment, git, guard, targets

_USERNAME, _RUN_CONTEXT = "MLFLOW_TRACKING_USERNAME", "MLFLOW_RUN_CONTEXT"
_SOURCE_NAME, _SOURCE_TYPE = "mlflow.source.name", "mlflow.source.type"


def tags() -> dict[str, str]:
    """The context tags of a run that starts now; a part that cannot be told is left out."""
    found: dict[str, str] = {}
    for part in (_program, _notebook, _databricks, _given):
        with guard.shield("context tags"):
            found.update(part())
    return found


# -- the program -----------------------------------------------------------------------------------


def _program() -> dict[str, str]:
    source = sys.argv[0] if sys.argv else ""
    return {
        "mlflow.user": environment.variables().get(_USERNAME) or _user(),
        _SOURCE_NAME: source or "<console>",
        _SOURCE_TYPE: "LOCAL",
        **_git(source),
    }


@functools.cache
def _user() -> str:
    """The user that MLflow's client logs in by file, else that of the machine."""
    try:
        return _user_in(Path("~/.mlflow/credentials").expanduser()) or getpass.getuser()
    except (OSError, KeyError, ImportError, RuntimeError):
        return "unknown"


def _user_in(credentials: Path) -> str:
    if not credentials.is_file():
        return ""
    import configparser  # not for everybody: it takes milliseconds

    sections = configparser.ConfigParser(interpolation=None)
    try:
        sections.read(credentials)
    except (configparser.Error, UnicodeDecodeError):
        return ""
    return sections.get("mlflow", _USERNAME, fallback="")


@functools.cache
def _git(source: str) -> Mapping[str, str]:
    """The checkout that a main file is from; as it was first seen, for that is what runs."""
    path = Path(source).absolute()
    folder = path.parent if path.is_file() else path
    found = git.checkout(folder) if source and folder.is_dir() else None
    if found is None:
        return {}
    tags = {"mlflow.source.git.commit": found.commit}
    if found.branch:
        tags["mlflow.source.git.branch"] = found.branch
    if found.url:
        tags["mlflow.source.git.repoURL"] = targets.without_userinfo(found.url)
    return tags


# -- notebooks -------------------------------------------------------------------------------------


def _notebook() -> dict[str, str]:
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    if not hasattr(shell, "kernel"):
        return {}
    environ = environment.variables()
    name = (
        shell.user_ns.get("__vsc_ipynb_file__")
        or environ.get("__vsc_ipynb_file__")
        or environ.get("IPYNB_FILE")
        or environ.get("JPY_SESSION_NAME")  # Jupyter's server; MLflow asks it over HTTP
    )
    named = {_SOURCE_NAME: Path(name).name} if name else {}
    return {_SOURCE_TYPE: "NOTEBOOK", **named}


# -- Databricks ------------------------------------------------------------------------------------

_PLACE = {
    "mlflow.databricks.webappURL": "apiUrl",
    "mlflow.databricks.workspaceID": "workspaceId",
}
_NOTEBOOK = {
    **_PLACE,
    _SOURCE_NAME: "notebookPath",
    "mlflow.databricks.notebookID": "notebookId",
    "mlflow.databricks.notebookPath": "notebookPath",
}
_JOB = {
    **_PLACE,
    "mlflow.databricks.jobID": "jobId",
    "mlflow.databricks.jobRunID": "idInJob",
    "mlflow.databricks.jobType": "jobTaskType",
}
_ANYWHERE = {
    "mlflow.databricks.cluster.id": "clusterId",
    "mlflow.databricks.notebook.commandID": "jobGroupId",
    "mlflow.databricks.gitRepoUrl": "mlflowGitRepoUrl",
    "mlflow.databricks.gitRepoProvider": "mlflowGitRepoProvider",
    "mlflow.databricks.gitRepoCommit": "mlflowGitRepoCommit",
    "mlflow.databricks.gitRepoRelativePath": "mlflowGitRelativePath",
    "mlflow.databricks.gitRepoReference": "mlflowGitRepoReference",
    "mlflow.databricks.gitRepoReferenceType": "mlflowGitRepoReferenceType",
    "mlflow.databricks.gitRepoStatus": "mlflowGitRepoStatus",
}


def _databricks() -> dict[str, str]:
    """What Databricks' runtime tells of the command that this process works on."""
    if "dbruntime" not in sys.modules:
        return {}
    context = importlib.import_module("dbruntime.databricks_repl_context").get_context()
    if context is None:
        return {}
    names, fixed = dict(_ANYWHERE), {}
    if getattr(context, "isInNotebook", None):
        names |= _NOTEBOOK
        fixed = {_SOURCE_TYPE: "NOTEBOOK"}
    if getattr(context, "isInJob", None):
        names |= _JOB
        fixed = {
            _SOURCE_TYPE: "JOB",
            _SOURCE_NAME: f"jobs/{context.jobId}/run/{context.idInJob}",
        }
    if fixed and (host := getattr(context, "workspaceUrl", None)):
        fixed["mlflow.databricks.workspaceURL"] = f"https://{host.removeprefix('https://')}"
    values = {tag: getattr(context, name, None) for tag, name in names.items()}
    return {tag: str(value) for tag, value in values.items() if value is not None} | fixed


# -- what the user says ----------------------------------------------------------------------------


def _given() -> dict[str, str]:
    given = environment.variables().get(_RUN_CONTEXT)
    if not given:
        return {}
    try:
        return {key: str(value) for key, value in json.loads(given).items()}
    except (ValueError, AttributeError) as error:
        guard.say_once(_RUN_CONTEXT, f"{_RUN_CONTEXT} is not used, being no JSON object: {error}")
        return {}
