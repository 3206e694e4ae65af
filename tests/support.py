"""What tests are made with: bounded polling, fresh processes and a real MLflow server."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

QUIET_MLFLOW = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
"""Keeps MLflow from phoning home and from starting helpers that no test needs."""

_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 2 << 30


def eventually(check: Callable[[], T], timeout: float = 10.0, every: float = 0.05) -> T:
    """The first true result of `check`; after `timeout` seconds an ``AssertionError``.

    An ``AssertionError`` of `check` counts as false, and the last one is the cause of ours.
    """
    deadline = time.monotonic() + timeout
    while True:
        failure = None
        try:
            result = check()
        except AssertionError as error:
            failure = error
        else:
            if result:
                return result
        if time.monotonic() > deadline:
            shown = failure or f"the last answer was {result!r}"
            raise AssertionError(f"not within {timeout} s: {shown}") from failure
        time.sleep(every)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_script(
    source: str,
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    python: Path | str = sys.executable,
) -> subprocess.CompletedProcess[str]:
    """Run `source` as ``train.py`` in `cwd`, in a fresh process with `env` on top of ours.

    Past `timeout` seconds the process and its children are killed, and ``AssertionError`` raised.
    """
    process = start_script(source, cwd=cwd, env=env, python=python)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_group(process)
        out, err = process.communicate()
        raise AssertionError(f"still running after {timeout} s:\n{out}\n{err}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def start_script(
    source: str,
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    python: Path | str = sys.executable,
) -> subprocess.Popen[str]:
    """Start `source` as ``train.py`` in `cwd`; the end of the test kills what is left of it."""
    script = cwd / "train.py"
    script.write_text(textwrap.dedent(source))
    process = subprocess.Popen(
        [str(python), str(script)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _started.append(process)
    return process


_LEAVE = """
import os, sys
import autolog
autolog.shutdown(0)
sys.stdout.flush(), sys.stderr.flush()
os._exit(0)
"""
"""Torch's own threads now and then abort a process of a group that ends in the ordinary way."""


def run_ranks(
    source: str, *, cwd: Path, ranks: int = 2, timeout: float = 90
) -> list[subprocess.CompletedProcess[str]]:
    """Run `source` in one fresh process a rank, as torchrun would; by rank what became of each."""
    program = textwrap.dedent(source) + _LEAVE
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
    processes = [
        start_script(program, cwd=cwd, env={**place, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(ranks)
    ]
    done = []
    for process in processes:
        out, err = process.communicate(timeout=timeout)
        done.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return done


_started: list[subprocess.Popen[str]] = []


def end_started_scripts() -> None:
    """Kill every script of this test, with the children that stayed in its session."""
    while _started:
        process = _started.pop()
        kill_group(process)
        process.communicate()


def kill_group(process: subprocess.Popen[Any]) -> None:
    """SIGKILL to the process group that `process` leads."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def memory_folder() -> Path | None:
    """A folder in memory where a machine has one with room; else None, for the usual place.

    MLflow's databases wait for the disk at each request, which is most of a request's time.
    """
    has_room = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ENOUGH_BYTES
    return _MEMORY if has_room else None


@contextlib.contextmanager
def tmpfs(place: Path, size: str) -> Iterator[Path]:
    """A filesystem of its own that is soon full; raises `OSError` where mounting is forbidden."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        raise OSError("no mount command here")
    place.mkdir()
    command = [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run([umount, "--lazy", str(place)], check=True)


class Point(NamedTuple):
    """One stored value of a metric."""

    key: str
    step: int
    timestamp: int
    value: float


class StoredRun(NamedTuple):
    """What MLflow keeps of a run beside its metrics."""

    id: str
    status: str
    end_time: int | None
    params: dict[str, str]
    tags: dict[str, str]


class SqliteStore:
    """What MLflow keeps in the SQLite file `path`, read without MLflow."""

    def __init__(self, path: Path) -> None:
        self.uri = f"sqlite:///{path}"
        self._path = path

    @classmethod
    def of(cls, uri: str) -> SqliteStore:
        """What is kept behind a tracking URI."""
        return cls(Path(uri.removeprefix("sqlite:///")))

    def points(self, run_id: str) -> set[Point]:
        """Every stored value of a run.

        NaN comes as ``math.nan`` itself, which a set finds again; MLflow stores infinities as the
        largest floats.
        """
        rows = self._rows(
            "SELECT key, step, timestamp, value, is_nan FROM metrics WHERE run_uuid = ?", run_id
        )
        return {Point(*row, math.nan if is_nan else value) for *row, value, is_nan in rows}

    def run_ids(self) -> list[str]:
        """Every run, the oldest first."""
        return [run for (run,) in self._rows("SELECT run_uuid FROM runs ORDER BY start_time")]

    def count(self, name: str) -> int:
        """How many values the runs of a name have."""
        query = "SELECT COUNT(*) FROM metrics JOIN runs USING (run_uuid) WHERE runs.name = ?"
        return int(self._rows(query, name)[0][0])

    def runs_named(self, name: str) -> list[StoredRun]:
        """The runs of that name."""
        found = self._rows("SELECT run_uuid, status, end_time FROM runs WHERE name = ?", name)
        return [
            StoredRun(
                run_id,
                status,
                end_time,
                dict(self._rows("SELECT key, value FROM params WHERE run_uuid = ?", run_id)),
                dict(self._rows("SELECT key, value FROM tags WHERE run_uuid = ?", run_id)),
            )
            for run_id, status, end_time in found
        ]

    def total(self) -> int:
        """How many values all runs have."""
        return int(self._rows("SELECT COUNT(*) FROM metrics")[0][0])

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        uri = f"file:{self._path}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10)) as database:
            return database.execute(query, values).fetchall()


class MlflowServer:
    """A real ``mlflow server`` over SQLite in `root`, on a port of its own; it serves artifacts."""

    def __init__(self, root: Path, workers: int = 1) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._root = root
        self.store = SqliteStore(root / "mlflow.db")
        self._workers = workers
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 60) -> None:
        """Start, or start again on the same port and database; returns once it answers."""
        with (self._root / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
                    *("--port", str(self.port), "--workers", str(self._workers)),
                    *("--backend-store-uri", self.store.uri),
                    *("--artifacts-destination", str(self._root / "artifacts")),
                ],
                cwd=self._root,
                env=_environment_of_a_server(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self._healthy, timeout)

    def stop(self) -> None:
        """End it as an administrator would (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it in the middle of whatever it does (SIGKILL)."""
        self._end(signal.SIGKILL)

    def client(self) -> MlflowClient:
        """MLflow's own client of this server."""
        from mlflow import MlflowClient

        return MlflowClient(self.url)

    def points(self, run_id: str) -> set[Point]:
        """Every stored value of a run; a dead server has them too."""
        return self.store.points(run_id)

    def run_ids(self) -> list[str]:
        """Every run on the server, the oldest first."""
        return self.store.run_ids()

    @property
    def pid(self) -> int:
        """The process that all its workers come from."""
        assert self._process is not None
        return self._process.pid

    def request_count(self, path: str) -> int:
        """How many requests it has answered whose line in its log contains `path`."""
        return (self._root / "server.log").read_text().count(path)

    def artifacts(self, run_id: str) -> dict[str, bytes]:
        """The files of a run, by their path in it."""
        files: dict[str, bytes] = {}
        for folder in self._root.glob(f"artifacts/*/{run_id}/artifacts"):
            found = (path for path in folder.rglob("*") if path.is_file())
            files |= {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
        return files

    def _healthy(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError((self._root / "server.log").read_text())
        return answers(f"{self.url}/health")

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, how)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            kill_group(self._process)
            self._process.wait()
        kill_group(self._process)  # a worker that outlived its leader
        self._process = None


def answers(url: str) -> bool:
    """True when `url` gives 200 within a second."""
    try:
        with urllib.request.urlopen(url, timeout=1) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _environment_of_a_server() -> dict[str, str]:
    """The machine's environment, less what a test set for the client side."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AUTOLOG_", "MLFLOW_"))
    }
    return {**kept, **QUIET_MLFLOW}
