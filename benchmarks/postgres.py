"""A PostgreSQL of a benchmark's own, from Debian's package ``postgresql``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from support import eventually

_DEBIAN = Path("/usr/lib/postgresql")
"""Has the programs of each release, which stand on no PATH."""
_UNPRIVILEGED = "postgres"
"""Debian's package makes this user; PostgreSQL does not run as root."""
_NAME = "mlflow"
"""Of the database, and of who owns it."""


class Postgres:
    """A server with PostgreSQL's own defaults and a new database, on a socket in `root`."""

    def __init__(self, root: Path) -> None:
        self.uri = f"postgresql+psycopg2://{_NAME}@/{_NAME}?host={root}"
        self._root = root
        self._user = _UNPRIVILEGED if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Any = None

    @property
    def pid(self) -> int:
        """The process that all others of the server come from."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, and make the database; the driver is loaded only here, for not all have it."""
        import psycopg2

        if self._user is not None:
            shutil.chown(self._root, self._user)
        data = str(self._root / "data")
        self._run("initdb", "--pgdata", data, "--username", _NAME, "--auth", "trust")
        with (self._root / "postgres.log").open("wb") as log:
            self._process = subprocess.Popen(
                [_program("postgres"), "-D", data, "-k", str(self._root), "-h", ""],
                stdout=log,
                stderr=log,
                user=self._user,
            )
        eventually(self._is_up, timeout=60)
        self._run("createdb", "--host", str(self._root), "--username", _NAME, _NAME)
        self._connection = psycopg2.connect(host=str(self._root), user=_NAME, dbname=_NAME)
        self._connection.autocommit = True

    def kill(self) -> None:
        """End it, whoever is connected."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)
            self._process = None

    def ask(self, query: str) -> tuple[Any, ...]:
        """The one row that a query finds."""
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            row: tuple[Any, ...] = cursor.fetchone()
        return row

    def total(self) -> int:
        """How many values all runs have."""
        return int(self.ask("SELECT count(*) FROM metrics")[0])

    def _is_up(self) -> bool:
        command = [_program("pg_isready"), "--quiet", "--host", str(self._root)]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        command = [_program(program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=self._user)


def _program(name: str) -> str:
    """A program of the newest release that is installed."""
    releases = sorted(_DEBIAN.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = shutil.which(name) or (str(releases[-1]) if releases else None)
    if found is None:
        raise FileNotFoundError(f"{name}: install PostgreSQL (Debian's package `postgresql`)")
    return found
