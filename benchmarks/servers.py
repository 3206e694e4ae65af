"""A real ``mlflow server`` for the benchmarks, and an address where nobody listens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def mlflow_server() -> Iterator[str]:
    """The address of a server with MLflow's own defaults, on a fresh database."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = (Path(folder) / "log").open("w")
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--port", str(port)]
            + ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
            + ["--artifacts-destination", f"{folder}/artifacts"],
            stdout=log, stderr=log, start_new_session=True,
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        )
        try:
            _wait_until_healthy(f"http://127.0.0.1:{port}/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@contextmanager
def closed_port() -> Iterator[str]:
    """An address that refuses connections for as long as this lasts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(url: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2) as reply:
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"{url} does not answer after 120 s")
