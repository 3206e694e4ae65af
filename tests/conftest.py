"""What every test gets: a home of its own, and the proof that it left nothing behind."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from faults import FaultyProxy
from logged import LoggedRun, logged_runs
from readback import Experiment
from support import QUIET_MLFLOW, MlflowServer, end_started_scripts, eventually, memory_folder

import autolog
import autolog.guard

os.environ.update(QUIET_MLFLOW)

_OUTSIDE = (
    *("AUTOLOG_", "AZUREML_", "DATABRICKS_", "KUBERNETES_", "MLFLOW_", "SLURM_"),
    *("RANK", "WORLD_SIZE", "PYTHONPATH"),
    "PYTHONDONTWRITEBYTECODE",  # an installation has bytecode, so each process need not make it
)


@pytest.fixture(scope="session")
def in_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for what MLflow stores, in memory where a machine has room for it."""
    memory = memory_folder()
    if memory is None:
        yield tmp_path_factory.mktemp("mlflow")
        return
    with tempfile.TemporaryDirectory(
        dir=memory, prefix="autolog-tests-", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def new_store(in_memory: Path) -> Callable[[], str]:
    """Gives the URI of another SQLite store of MLflow's, with its tables and nothing in them.

    It is a copy, for MLflow takes seconds to make the tables.
    """
    from mlflow import MlflowClient

    empty = in_memory / "empty.db"
    MlflowClient(f"sqlite:///{empty}").search_experiments()
    with contextlib.closing(sqlite3.connect(empty)) as connection:
        connection.execute("DELETE FROM experiments")  # the first one says where its files are
        connection.commit()

    def copied() -> str:
        folder = tempfile.mkdtemp(dir=in_memory)
        shutil.copy(empty, f"{folder}/mlflow.db")
        return f"sqlite:///{folder}/mlflow.db"

    return copied


@pytest.fixture(scope="session")
def mlflow_server(in_memory: Path) -> Iterator[MlflowServer]:
    """A running ``mlflow server`` that the tests of this process share."""
    root = in_memory / "server"
    root.mkdir()
    server = MlflowServer(root)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def faulty(mlflow_server: MlflowServer) -> Iterator[FaultyProxy]:
    """A proxy before `mlflow_server` that misbehaves on demand."""
    with FaultyProxy(mlflow_server.url) as proxy:
        yield proxy


@pytest.fixture
def experiment(mlflow_server: MlflowServer) -> Experiment:
    """An experiment of the test's own, on the server that all share."""
    return Experiment(mlflow_server)


@pytest.fixture
def own_experiment(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """The same, which this process logs to."""
    for name, value in experiment.env.items():
        monkeypatch.setenv(name, value)
    return experiment


@pytest.fixture(params=["host", "ring"])
def everywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop of torch, once as it is, once with every loss going through a device ring."""
    from autolog.callbacks.tensors import Scalars
    from autolog.callbacks.torch.tape import Tape

    def append(self: Scalars, scalar: object) -> None:
        self._values.append(float("nan"))
        self._rings.put(scalar, self, len(self) - 1)

    if request.param == "ring":
        monkeypatch.setattr(Scalars, "append", append)
        monkeypatch.setattr(Tape, "begin", lambda *_: None)  # takes what is on the host


@pytest.fixture(autouse=True)
def autolog_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swallowed: object
) -> Iterator[Path]:
    """An ``AUTOLOG_DIR`` of the test's own; nothing of ours outlives the test.

    The working folder is the test's, and no setting comes from outside. At the end this process's
    session, the shippers of this home and the scripts of the test are ended; what is still there
    then is a leak and fails the test. (`swallowed` is asked for so that it looks last.)
    """
    environment = dict(os.environ)
    home = tmp_path / "autolog-home"
    for name in environment:
        if name.startswith(_OUTSIDE) and name not in QUIET_MLFLOW:
            del os.environ[name]
    os.environ["AUTOLOG_DIR"] = str(home)
    os.environ["AUTOLOG_LOG_MODELS"] = "0"  # each would wait for a process that loads mlflow
    monkeypatch.chdir(tmp_path)
    yield home
    _end_session()
    _forget_mlflow()
    os.environ.clear()
    os.environ.update(environment)
    end_started_scripts()
    try:
        eventually(lambda: _shippers_are_gone(home), 20)
        eventually(lambda: not _our_threads(), 5)
    except AssertionError:
        leaked = [*_processes_in(home), *_our_threads()]
        for process in _processes_in(home):
            process.kill()
        pytest.fail(f"left behind: {leaked}")


@pytest.fixture
def logged(autolog_home: Path) -> Callable[[], list[LoggedRun]]:
    """The runs so far, with autolog enabled and nobody who sends."""
    autolog.enable(mode="offline", silent=True)
    return lambda: logged_runs(autolog_home)


@pytest.fixture
def off(logged: Callable[[], list[LoggedRun]]) -> Callable[[], list[LoggedRun]]:
    """As `logged`, with autolog not enabled."""
    autolog.disable()
    return logged


@pytest.fixture(autouse=True)
def swallowed() -> Iterator[list[tuple[str, Exception]]]:
    """What the guard keeps from a user fails the test, unless the test takes it out of here."""
    guard = autolog.guard
    guard.swallowed.clear()
    yield guard.swallowed
    errors = list(guard.swallowed)
    guard.swallowed.clear()
    guard.failures.clear()
    guard._said.clear()
    guard.strict = guard.silent = False
    for place, error in errors:
        raise AssertionError(f"swallowed at {place}: {error!r}") from error


_OURS = re.compile(r"autolog\.(shipper|uploading|exporters\.new_database)")


def _shippers_are_gone(home: Path) -> bool:
    """End the shippers, one that just starts too, and their helpers that upload files."""
    left = _processes_in(home)
    for process in left:
        with contextlib.suppress(psutil.Error):
            if _OURS.search(" ".join(process.cmdline())):
                process.kill()
    return not left


def _end_session() -> None:
    module = sys.modules.get("autolog.session")
    session = module and module._session
    if session is None:
        return
    session.configure({"strict": False})  # what is pending now is no failure
    session.shutdown(0)
    session.journals.keeper.stop()
    session._after_fork()  # lets go of all files, which it would keep as long as the process
    atexit.unregister(session._at_exit)
    module._session = None


def _forget_mlflow() -> None:
    mlflow = sys.modules.get("mlflow")
    if mlflow is None:
        return
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)
    mlflow.tracking.fluent._active_experiment_id = None


def _processes_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("autolog-")]
