"""What users install: wheel, sdist and checkout, each in an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import answers, eventually, free_port, kill_group, run_script

ROOT = Path(__file__).parent.parent

LOG_ONE_VALUE = """
    import autolog
    import autolog.callbacks

    autolog.enable(tracking_uri="sqlite:///runs.db")
    with autolog.run():
        autolog.log_metric("answer", 42.0)
    assert autolog.flush(60).complete
    (point,) = autolog.last_run().metrics()["answer"]
    print(autolog.__file__, autolog.callbacks.__file__, point.value, sep="\\n")
"""

FIT = """
    import autolog

    autolog.enable()

    from sklearn.datasets import load_breast_cancer
    from sklearn.neural_network import MLPClassifier

    MLPClassifier((4,), max_iter=3).fit(*load_breast_cancer(return_X_y=True))
"""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of this checkout, and the wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """The interpreter of a fresh environment that finds our dependencies, but not autolog."""
    _run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    # A path file read from a path file is not followed, so our own editable install stays unseen.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    assert subprocess.run([python, "-c", "import autolog"], check=False, cwd=tmp_path).returncode
    return python


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder in which a user's script lives."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _install(python: Path, *what: str | Path) -> None:
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    _run(*pip, "--no-deps", "--no-build-isolation", *what)


def _contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_the_whole_package_and_nothing_beside_it(
    archives: tuple[Path, Path],
) -> None:
    """Every source file arrives as a real file under ``autolog/``; nothing is named `callbacks`."""
    names = [name for name in _contents(archives[1]) if ".dist-info/" not in name]
    package = ROOT / "autolog"
    callbacks = ROOT / "callbacks"
    sources = {f"autolog/{p.relative_to(package)}" for p in package.rglob("*.py")}
    sources |= {f"autolog/callbacks/{p.relative_to(callbacks)}" for p in callbacks.rglob("*.py")}
    assert set(names) == {*sources, "autolog/py.typed"}
    assert len(names) == len(set(names))


def test_the_sdist_builds_the_same_wheel_as_the_checkout(
    archives: tuple[Path, Path], tmp_path: Path
) -> None:
    """Byte for byte, and the sdist has no link that another system could not unpack."""
    sdist, wheel = archives
    with tarfile.open(sdist) as archive:
        assert all(member.isfile() for member in archive)
    _run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT)
    (direct,) = tmp_path.glob("*.whl")
    assert _contents(direct) == _contents(wheel)


@pytest.mark.parametrize("form", ["wheel", "sdist", "editable"])
def test_an_install_logs(
    form: str, archives: tuple[Path, Path], environment: Path, project: Path
) -> None:
    """However it was installed, a script logs a value and reads it back from the store."""
    sdist, wheel = archives
    what = {"wheel": [wheel], "sdist": [sdist], "editable": ["-e", ROOT]}[form]
    _install(environment, *what)
    done = run_script(LOG_ONE_VALUE, cwd=project, python=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    package, callbacks, value = done.stdout.split()
    home = ROOT if form == "editable" else environment.parent.parent
    assert Path(package).is_relative_to(home)
    assert Path(callbacks).parent == Path(package).parent / "callbacks"
    assert float(value) == 42.0


def test_the_command_is_installed(
    archives: tuple[Path, Path], environment: Path, project: Path
) -> None:
    """``autolog`` runs, and ``python -m autolog`` is the same."""
    _install(environment, archives[1])
    for command in ([environment.parent / "autolog"], [environment, "-m", "autolog"]):
        assert "sync" in _run(*command, "--help")


def test_callbacks_is_no_package_of_its_own(project: Path) -> None:
    """From the checkout too, ``import callbacks`` fails and says what to import instead."""
    done = run_script("import callbacks.keras", cwd=project, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert "autolog.callbacks" in done.stderr


@pytest.mark.index
@pytest.mark.timeout(900)
def test_a_bare_install_fits_and_shows(
    archives: tuple[Path, Path], tmp_path: Path, project: Path
) -> None:
    """``pip install`` of the wheel and scikit-learn is all: a fit is seen in the UI we name."""
    _run(sys.executable, "-m", "venv", tmp_path / "bare")
    bin_folder = tmp_path / "bare" / "bin"
    constraints = ROOT / "constraints" / "tested.txt"
    pip = (bin_folder / "python", "-m", "pip", "install", "--quiet")
    _run(*pip, "--no-compile", "-c", constraints, archives[1], "scikit-learn")

    done = run_script(FIT, cwd=project, python=bin_folder / "python", timeout=120)
    assert done.returncode == 0, done.stderr
    printed = re.search(r"mlflow ui [^)\n]+", done.stderr)
    assert printed, done.stderr
    path = f"{bin_folder}:{os.environ['PATH']}"
    with _ui(shlex.split(printed[0]), tmp_path, {**os.environ, "PATH": path}) as url:
        with urllib.request.urlopen(url, timeout=30) as page:
            assert "<title>MLflow</title>" in page.read().decode()
        (run,) = eventually(lambda: _runs(url), 120)
        assert run["data"]["metrics"][0]["key"] == "epoch_loss"


@contextlib.contextmanager
def _ui(command: list[str], folder: Path, env: dict[str, str]) -> Iterator[str]:
    """Run the command on a free port, and give the address of its page."""
    port = free_port()
    with (folder / "ui.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--workers", "1"],
            cwd=folder,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: answers(url), 120)
        yield url
    finally:
        kill_group(process)
        process.wait()


def _runs(url: str) -> list[dict[str, dict[str, list[dict[str, object]]]]]:
    body = json.dumps({"experiment_ids": ["0"]}).encode()
    search = urllib.request.Request(
        f"{url}/api/2.0/mlflow/runs/search", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(search, timeout=30) as reply:
        return json.load(reply).get("runs", [])
