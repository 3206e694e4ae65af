"""Runs the processes of contenders, watches them from outside, and reads what they left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from figures import home, peak_megabytes
from support import QUIET_MLFLOW, MlflowServer

from peers.child import Order
from peers.contenders import Contender, Place
from peers.tally import Tally
from peers.work import Audit

SEARCH_PATH = os.pathsep.join(
    filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")])
)
"""Where the processes that are started find this package."""


class User:
    """A home that the processes of one contender share, as those of one person do."""

    def __init__(self, contender: Contender, folder: Path, environ: dict[str, str]) -> None:
        self.contender = contender
        self._folder = folder
        self.environ = {
            **environ,
            **QUIET_MLFLOW,
            **contender.environ,
            "HOME": str(folder),
            "PYTHONPATH": SEARCH_PATH,
        }

    def place(self, server: MlflowServer, address: str = "") -> Place:
        """For one process; `address` is where it finds the server, if not at its own."""
        run = f"run-{uuid.uuid4().hex[:12]}"
        folder = self._folder / run
        folder.mkdir()
        return Place(str(folder), address or server.url, server.store.uri, run)

    def start(self, place: Place, steps: int, *, trains: bool = True) -> Process:
        """A process that logs so many steps there, once it is allowed to go on."""
        return Process(self, place, steps, trains)

    def audits(self, left: list[Left], *, recover: bool = False) -> list[Audit]:
        """What a process that was not there finds of each run."""
        options = ["--recover"] if recover else []
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "peers.reader", self.contender.name, *options],
            input="".join(json.dumps(each) + "\n" for each in left),
            check=False,
            capture_output=True,
            text=True,
            env=self.environ,
            cwd=self._folder,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return [Audit(*json.loads(line)) for line in done.stdout.splitlines()]

    def processes(self) -> list[psutil.Process]:
        """All that live in this home: those that train, and those that these have started."""
        return [process for process in psutil.process_iter() if _home_of(process) == self._home]

    @property
    def _home(self) -> str:
        return self.environ["HOME"]


class Left(NamedTuple):
    """What is known of a process that is gone."""

    place: Place
    called: int
    returned: int


class Usage(NamedTuple):
    """What a process took."""

    seconds: float = 0.0
    """Of processors."""
    megabytes: float = 0.0
    """Resident at most."""


class Meter:
    """What the processes of a home take from now on; look again before they end."""

    def __init__(self, person: User, host: Process) -> None:
        self._person = person
        self._host = host.pid
        self._before = self._now()
        self._last = dict(self._before)

    def look(self) -> None:
        """Read what each has taken so far."""
        self._last |= self._now()

    @property
    def host(self) -> Usage:
        """Of the process that trains."""
        return self._since(self._host)

    @property
    def helpers(self) -> Usage:
        """Of all that it started, together."""
        each = [self._since(pid) for pid in self._last if pid != self._host]
        return Usage(sum(one.seconds for one in each), sum(one.megabytes for one in each))

    def _since(self, pid: int) -> Usage:
        before = self._before.get(pid, Usage())
        return self._last[pid]._replace(seconds=self._last[pid].seconds - before.seconds)

    def _now(self) -> dict[int, Usage]:
        found = {}
        for process in self._person.processes():
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
                taken = process.cpu_times()
                found[process.pid] = Usage(taken.user + taken.system, peak_megabytes(process.pid))
        return found


class Bench(NamedTuple):
    """What a measurement works with."""

    contenders: list[Contender]
    server: MlflowServer
    quick: bool
    """Little and once: it shows that the program works, not how fast."""


@contextlib.contextmanager
def user(contender: Contender) -> Iterator[User]:
    """A new home; whatever still runs in it at the end is killed."""
    with home() as environ, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        person = User(contender, Path(folder), environ)
        try:
            yield person
        finally:
            for process in person.processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


class Process:
    """A process of a contender, from its start to its end."""

    def __init__(self, owner: User, place: Place, steps: int, trains: bool) -> None:
        path = Path(place.folder).with_suffix(".tally")
        self.place = place
        self.steps = steps
        self.tally = Tally.create(path, steps)
        self._log = Path(place.folder).with_suffix(".log")
        order = Order(owner.contender.name, place, str(path), steps, trains)
        with self._log.open("wb") as log:
            self.began = time.monotonic_ns()
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "peers.child", json.dumps(order._asdict())],
                env=owner.environ,
                cwd=place.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self._process.pid

    def wait_until(self, reached: Callable[[Tally], bool], timeout: float) -> bool:
        """Whether its tally came so far within some seconds.

        Raises:
            RuntimeError: The process ended by itself before.
        """
        deadline = time.monotonic() + timeout
        while not reached(self.tally):
            if time.monotonic() > deadline:
                return False
            if self._process.poll() is not None and not reached(self.tally):
                raise RuntimeError(self._log.read_text())
            time.sleep(0.002)
        return True

    def allow(self, calls: int) -> None:
        """Let it make so many calls, counted from its beginning."""
        self.tally.words[Tally.ALLOWED] = calls

    def linger(self, lingers: bool = True) -> None:
        """Have it wait at its end, or end."""
        self.tally.words[Tally.MAY_END] = not lingers

    def wait(self, timeout: float) -> bool:
        """Whether it ended by itself within some seconds."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> Left:
        """SIGKILL, now; and what was certain then."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        return self.left

    @property
    def left(self) -> Left:
        """What its tally says."""
        words = self.tally.words
        return Left(self.place, words[Tally.CALLED], words[Tally.RETURNED])


def _home_of(process: psutil.Process) -> str:
    try:
        return process.environ().get("HOME", "")
    except psutil.Error:
        return ""
