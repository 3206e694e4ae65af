"""What can be wrong with a workspace of Azure Machine Learning, and with the packages for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib import metadata

from autolog import credentials, launch, targets
from autolog.doctor.finding import Finding
from autolog.workspace.address import Workspace

_PACKAGES = ("azureml-mlflow", "azureml-core", "azure-ai-ml", "azure-identity")
_MENDED, _BROKEN_SINCE = (1, 62), (3, 1)
"""Releases of azureml-mlflow and of MLflow."""


def examine(workspace: Workspace) -> Iterator[Finding]:
    """Look at packages and credential, and ask the workspace: each question for 20 s at most."""
    yield _packages()
    environ = credentials.shipper_environment(workspace.uri)
    credential = _asked("credential", environ)
    yield credential
    yield _asked("clock", environ)
    if credential.is_well:
        yield _asked("target answers", environ)
        run_id = targets.adopted_run_id()
        if run_id is not None:
            yield _asked("run", environ, run_id)


def _asked(question: str, environ: Mapping[str, str], *about: str) -> Finding:
    try:
        answer = launch.answer("autolog.exporters.azure_questions", environ, question, *about)
        text, remedy = json.loads(answer)
    except launch.NoAnswer as silence:
        remedy = "see whether Azure can be reached from here: proxy, firewall, private endpoint"
        return Finding(question, str(silence), remedy)
    return Finding(question, text, remedy)


def _packages() -> Finding:
    found = {name: version for name in _PACKAGES if (version := _version(name))}
    plugin, mlflow = (
        found.get("azureml-mlflow", ""),
        _version("mlflow") or _version("mlflow-skinny"),
    )
    if plugin and _release(plugin) < _MENDED and _release(mlflow) >= _BROKEN_SINCE:
        return Finding(
            "packages",
            f"azureml-mlflow {plugin} beside MLflow {mlflow} fails at every file that MLflow's own "
            "client uploads",
            'pip install "azureml-mlflow>=1.62"',
        )
    shown = ", ".join(f"{name} {version}" for name, version in found.items())
    return Finding("packages", shown or "none of Azure's, which a job does not need")


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _release(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))
