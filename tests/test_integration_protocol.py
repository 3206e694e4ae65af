"""An integration of another package, as ``docs/adding-an-integration.md`` builds it, works."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomllib

from autolog import hooks

if TYPE_CHECKING:
    from readback import Experiment

    from autolog.callbacks import Integration

_PAGE = Path(__file__).parent.parent / "docs" / "adding-an-integration.md"

_FRAMEWORK = """
class Model:
    def __init__(self, rate=0.5):
        self.rate = rate

    def epoch(self, data):
        if not data:
            raise ValueError("no data")
        self.rate /= 2
        return self.rate

    def fit(self, data, epochs=3):
        for _ in range(epochs):
            self.epoch(data)
        return self
"""
_PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "toy-autolog"
version = "1.0"
[tool.hatch.build.targets.wheel]
include = ["toy_autolog.py"]
"""


def _block(language: str) -> str:
    """The only code block of a language in the page."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the framework, and the page's integration installed as a distribution."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "toy_autolog.py").write_text(_block("python"))
    (source / "pyproject.toml").write_text(_PROJECT + _block("toml"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [*command, "--no-build-isolation", "--target", str(site), str(source)],
        check=True,
        capture_output=True,
        timeout=150,
    )
    (site / "toyframe.py").write_text(_FRAMEWORK)
    return site


def test_the_page_names_the_entry_point_group() -> None:
    """Page and code agree on the group."""
    assert list(tomllib.loads(_block("toml"))["project"]["entry-points"]) == [hooks.ENTRY_POINTS]


@pytest.mark.parametrize("order", ["enable first", "import first"])
def test_the_pages_integration_logs_trainings(
    order: str, site: Path, experiment: Experiment, tmp_path: Path
) -> None:
    """Installed, it is found: params, each epoch's loss, a second fit that goes on, the end."""
    lines = ["autolog.enable()", "import toyframe"]
    source = """
        import autolog
        {}
        {}
        with autolog.run("two fits"):
            model = toyframe.Model(rate=1.0)
            assert model.fit([1]) is model
            model.fit([1], epochs=2)
        try:
            toyframe.Model().fit([])
        except ValueError as error:
            assert str(error) == "no data"
        print(autolog.status()["instrumented"])
        before = vars(toyframe.Model)["fit"]
        autolog.disable()
        assert vars(toyframe.Model)["fit"] is before.__wrapped__
        toyframe.Model().fit([1])
    """.format(*(lines if order == "enable first" else reversed(lines)))
    out = experiment.script(source, tmp_path, PYTHONPATH=str(site))
    assert json.loads(out.replace("'", '"')) == ["toyframe"]
    runs = experiment.runs(2)
    assert experiment.values(runs["two fits"], "epoch_loss", 5) == [2.0**-n for n in range(1, 6)]
    assert runs["two fits"].data.params == {"rate": "1.0"}
    assert runs["two fits"].data.tags["mlflow.autologging"] == "toyframe"
    failed = next(run for name, run in runs.items() if name.startswith("Model-"))
    assert failed.info.status == "FAILED"
    assert experiment.points(failed) == set()


def test_the_pages_integration_passes_mypy_strict(site: Path, tmp_path: Path) -> None:
    """What the page shows is typed like our own integrations, and is an `Integration`."""
    check = tmp_path / "check.py"
    check.write_text(
        "import toy_autolog\nfrom autolog.callbacks import Integration\n"
        "found: Integration = toy_autolog\n"
    )
    (tmp_path / "toy_autolog.py").write_text((site / "toy_autolog.py").read_text())
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"),
            *("--config-file=", f"--cache-dir={tmp_path / 'cache'}", "check.py", "toy_autolog.py"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("module", "integration"), hooks.INTEGRATIONS.items())
def test_our_own_integrations_keep_the_protocol(module: str, integration: str) -> None:
    """Each has both functions; ``uninstrument`` before ``instrument`` does nothing."""
    pytest.importorskip(module.partition(".")[0])
    found: Integration = hooks._load(integration)
    found.uninstrument()
    assert callable(found.instrument)
    assert found.instrument.__doc__
    assert found.uninstrument.__doc__
