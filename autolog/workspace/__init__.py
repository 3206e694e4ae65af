"""Workspaces of Azure Machine Learning, as a program names them to ``autolog.enable(workspace=)``.

Nothing here asks a service, and nothing of Azure's packages is imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from autolog.workspace.address import Workspace

if TYPE_CHECKING:
    import os

__all__ = ["Workspace", "conda_dependencies", "from_config"]

_FOLDERS = (".azureml", "aml_config", "")
_FILE = "config.json"
_DISTRIBUTION = "mlflow-autolog"


def from_config(path: str | os.PathLike[str] | None = None) -> Workspace:
    """The workspace that a ``config.json`` names, which Azure's studio offers for download.

    Args:
        path: The file, or the folder to start in: there and in the folders above, a file in
            ``.azureml`` is looked for, then one in ``aml_config``, then one beside them, as
            ``azureml.core.Workspace.from_config`` does. Default: the working directory.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It does not name a workspace.
    """
    start = Path.cwd() if path is None else Path(path).expanduser().absolute()
    file = start if start.is_file() else next(_files(start), None)
    if file is None:
        raise FileNotFoundError(
            f"no {_FILE} in {start} and above; download it from the workspace's page in the studio"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.get("Scope"):  # as older tools wrote it
            return Workspace.of_resource(content["Scope"])
        fields = [content[name] for name in ("subscription_id", "resource_group", "workspace_name")]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} does not name a workspace ({type(error).__name__}: {error}); it needs "
            "subscription_id, resource_group and workspace_name"
        ) from None
    return Workspace(*map(str, fields))


def _files(start: Path) -> Iterator[Path]:
    for name in _FOLDERS:
        for folder in (start, *start.parents):
            if (file := folder / name / _FILE).is_file():
                yield file


def conda_dependencies() -> list[str]:
    """The pip packages that a job needs in order to log as this process does, pinned alike.

    For ``azureml.core.conda_dependencies.CondaDependencies.create(pip_packages=...)``, or the pip
    section of a conda file.
    """
    needed = (_DISTRIBUTION, "mlflow", "azureml-mlflow", "azure-identity")
    versions = []
    for name in needed:
        try:
            versions.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(name)
    return versions
