"""Each of the two extras by itself, in an environment that has nothing else of Azure's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import run_script

from tests.azureml import test_ml_client
from tests.azureml.programs import FORMS, TRAIN

if TYPE_CHECKING:
    from tests.azureml.standin import StandIn

_ROOT = Path(__file__).parent.parent.parent
_PROGRAMS = {
    "azureml": (
        FORMS["config.json"] + TRAIN,
        FORMS["object"] + TRAIN,
        FORMS["page, before"] + TRAIN,
    ),
    "azureml-v2": (
        FORMS["config.json"] + TRAIN,
        test_ml_client.CLIENT + test_ml_client.FORMS["object"] + TRAIN,
    ),
}
_ABSENT = {"azureml": "azure.ai.ml", "azureml-v2": "azureml.core"}


@pytest.mark.index
@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("extra", _PROGRAMS)
def test_an_extra_alone(extra: str, workspace: StandIn, tmp_path: Path) -> None:
    """It resolves, is consistent, and its forms of `enable` log to a workspace."""
    python = tmp_path / "venv" / "bin" / "python"
    constraints = _ROOT / "constraints" / "azureml.txt"
    for command in (
        (sys.executable, "-m", "venv", tmp_path / "venv"),
        (python, "-m", "pip", "install", "-q", "-c", constraints, f"{_ROOT}[{extra},sklearn]"),
        (python, "-m", "pip", "check"),
    ):
        subprocess.run([*map(str, command)], check=True, timeout=400)
    absent = f"import importlib.util as u; assert u.find_spec('{_ABSENT[extra]}') is None"
    done = run_script(absent, cwd=tmp_path, python=python)
    assert done.returncode == 0 or "ModuleNotFoundError" in done.stderr
    workspace.write_config(tmp_path)
    environ = {**workspace.environ("service principal"), "WORKSPACE": workspace.uri}
    for program in _PROGRAMS[extra]:
        done = run_script(program, cwd=tmp_path, env=environ, timeout=150, python=python)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        assert "internal error" not in done.stderr, done.stderr
