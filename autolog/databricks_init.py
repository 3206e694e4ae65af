"""The init script of a Databricks cluster whose notebooks all log to one place."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from urllib.parse import urlsplit

import autolog
from autolog import targets
from autolog.workspace.address import SCHEME, Workspace

_ENVIRONMENT = "/databricks/spark/conf/spark-env.sh"
"""Read by the driver, from which the Python processes of notebooks inherit."""
_CONFIG = "/databricks/config.json"
"""Above the working directory of notebooks, where ``Workspace.from_config()`` finds it."""
_END = "END_OF_AUTOLOG"


def init_script(uri: str, experiment: str | None = None, package: str | None = None) -> str:
    """A bash script that installs autolog on a node, and has MLflow and autolog log to `uri`.

    `package` is what pip is given. Default: this release, with Azure's packages where `uri` names a
    workspace of Azure ML.
    Raises `ValueError` for what a cluster cannot use; the message names the value and the remedy.
    """
    workspace = _checked(uri)
    for name, value in (("experiment", experiment), ("package", package)):
        if value is not None and not (value.strip() and value.isprintable()):
            raise ValueError(f"{name} {value!r}: use one line of text")
    wanted = package or _release("[azureml]" if workspace else "")
    return "\n".join(_lines(uri, workspace, experiment, wanted)) + "\n"


def _lines(
    uri: str, workspace: Workspace | None, experiment: str | None, package: str
) -> Iterator[str]:
    yield "#!/bin/bash"
    yield f"# autolog {autolog.__version__}: notebooks of this cluster log to {uri}"
    yield "set -euo pipefail"
    yield f"/databricks/python/bin/pip install {shlex.quote(package)}"
    yield f"cat >> {_ENVIRONMENT} <<'{_END}'"
    yield f"export MLFLOW_TRACKING_URI={shlex.quote(uri)}"
    if experiment:
        yield f"export MLFLOW_EXPERIMENT_NAME={shlex.quote(experiment)}"
    yield _END
    if workspace:
        names = {
            "subscription_id": workspace.subscription_id,
            "resource_group": workspace.resource_group,
            "workspace_name": workspace.name,
        }
        yield f"cat > {_CONFIG} <<'{_END}'"
        yield json.dumps(names)
        yield _END


def _release(extra: str) -> str:
    return f"mlflow-autolog{extra}=={autolog.__version__}"


def _checked(uri: str) -> Workspace | None:
    """The workspace of Azure ML that a tracking URI names, None for a server of another kind."""
    if not uri.isprintable() or " " in uri:
        raise ValueError(f"{uri!r} is no tracking URI: it has spaces or control characters")
    if targets.without_userinfo(uri) != uri:
        public = targets.without_userinfo(uri)
        raise ValueError(
            f"the URI has a password, and an init script is no place for one: give {public}, and "
            "the password as a secret of the cluster, MLFLOW_TRACKING_PASSWORD"
        )
    if targets.is_local(targets.absolute(uri)):
        raise ValueError(f"{uri!r} is a place on one machine: give a server that nodes reach")
    if urlsplit(uri).scheme != SCHEME:
        return None
    workspace = Workspace.parse(uri)
    if not workspace.host:
        raise ValueError(
            f"{uri!r} does not say the workspace's region; Workspace.get_mlflow_tracking_uri() "
            f"gives {workspace.at('REGION.api.azureml.ms').uri}"
        )
    return workspace
