"""Where an episode happens: a server behind a proxy, a disk, a clock, and the processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import psutil
from campaign import clock, truth
from campaign.credential import Password, Token
from faults import FaultyProxy
from support import MlflowServer, eventually, kill_group, tmpfs

from autolog.journal.layout import HELD
from autolog.journal.owner import is_locked
from autolog.journal.root import SHIPPER_LOCK, journals
from autolog.receipt import shipper_state
from autolog.standing import inspect

if TYPE_CHECKING:
    from campaign.schedule import Episode
    from typing_extensions import Self

_TESTS = Path(__file__).parents[1]
_PATIENCE = 300.0
"""Seconds that each step on the way back to order has: on a busy machine MLflow loads slowly."""
_SMALL_DISK = "1m"
_OUTSIDE = ("AUTOLOG_", "MLFLOW_", "PYTHONDONTWRITEBYTECODE")

Switch = Callable[[FaultyProxy], None]


class Missed(Exception):
    """A fault finds nothing that it could hit."""


class Spot(NamedTuple):
    """A damaged byte."""

    journal: Path
    segment: int
    offset: int


class World:
    """What there is in an episode; a context manager that starts its training, and ends all."""

    def __init__(self, episode: Episode, server: MlflowServer, folder: Path) -> None:
        """`folder` is made, and keeps all that the processes write."""
        self.episode, self.server, self.folder = episode, server, folder
        self.home, self.clock = folder / "home", folder / truth.CLOCK
        self.account: list[str] = []
        """What was done, and when, for a reader."""
        self.damaged: list[Spot] = []
        self.was_synced = False
        """Whether somebody had to send by hand what the processes had left."""
        self._network: list[Switch] = []
        self._began = time.monotonic()
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._ends:
            self.folder.mkdir(parents=True)
            self.proxy = self._ends.enter_context(FaultyProxy(self.server.url))
            if self.episode.has("fill disk"):
                with contextlib.suppress(OSError):  # that fault will say it
                    self._ends.enter_context(tmpfs(self.home, _SMALL_DISK))
                    self._ends.callback(self._copy_disk)
            clock.make(self.clock)
            (self.folder / truth.WORKLOAD).write_text(json.dumps(asdict(self.episode.workload)))
            self._environ = self._environment()
            for fault in self.episode.faults:
                if fault.kind == "expire credential":
                    form = (Token, Password)[fault.choice % 2]
                    self.credential = form(self.proxy, self._environ)
            self._ends.callback(self._end_processes)
            self._start_training()
            self._ends = self._ends.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def _environment(self) -> dict[str, str]:
        given = {name: text for name, text in os.environ.items() if not name.startswith(_OUTSIDE)}
        is_damaged = self.episode.has("damage", "damage the dead")
        return given | {
            "PYTHONPATH": str(_TESTS),
            "HOME": str(self.folder),
            "MLFLOW_TRACKING_URI": self.proxy.url,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "AUTOLOG_DIR": str(self.home),
            "AUTOLOG_BATCH_SECONDS": "1" if is_damaged else "0.1",  # what is sent suffers no more
            "AUTOLOG_EXIT_TIMEOUT": "1",
            "AUTOLOG_LINGER": "300",
            "AUTOLOG_SEGMENT_SIZE": str(1 << 16),
        }

    def _start_training(self) -> None:
        with (self.folder / truth.SAID).open("wb") as said:
            self._host = subprocess.Popen(
                [sys.executable, "-m", "campaign.training", str(self.folder)],
                start_new_session=True,
                **self._surroundings(said),
            )
        eventually(lambda: truth.has_begun(self.folder / truth.HOST), _PATIENCE, every=0.005)
        if not self.episode.is_early:
            eventually(self._shipper, _PATIENCE)
        (self.folder / truth.GO).touch()
        self._began = time.monotonic()

    def _end_processes(self) -> None:
        kill_group(self._host)  # a child of the training too
        self._host.wait()
        pid = self._shipper()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # who uploads its files too

    def _copy_disk(self) -> None:
        """Keep for a reader what goes with the small disk."""
        shutil.copytree(self.home, self.folder / "copy-of-home")

    # -- for faults ------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Say for a reader what happens now."""
        self.account.append(f"{time.monotonic() - self._began:6.2f} s  {text}")

    def wait_until(self, seconds: float) -> None:
        """Let so many seconds have passed since the training began."""
        time.sleep(max(0.0, self._began + seconds - time.monotonic()))

    def signal_host(self, what: signal.Signals) -> None:
        """Send a signal to the training."""
        if self._host.poll() is not None:
            raise Missed("the training is over")
        self._host.send_signal(what)
        self.note(f"{what.name} to the training, process {self._host.pid}")

    def signal_shipper(self, what: signal.Signals) -> None:
        """Send a signal to the process that sends; that of a living training is waited for."""
        eventually(lambda: self._shipper() or self._host.poll() is not None, _PATIENCE)
        pid = self._shipper()
        if pid is None:
            raise Missed("nobody sends")
        try:
            os.kill(pid, what)
        except (
            ProcessLookupError
        ):  # killed by another fault, and its successor has not said who it is
            raise Missed("it has just ended") from None
        self.note(f"{what.name} to the shipper, process {pid}")

    def signal_child(self, what: signal.Signals) -> None:
        """Send a signal to the process that the training has forked."""
        pid = self._child()
        os.kill(pid, what)
        self.note(f"{what.name} to the child, process {pid}")

    @contextlib.contextmanager
    def network(self, switch: Switch) -> Iterator[None]:
        """Have the proxy behave so, whenever no later fault has it behave otherwise."""
        self._network.append(switch)
        switch(self.proxy)
        yield
        self._network.remove(switch)
        newest = self._network[-1] if self._network else FaultyProxy.pass_on
        newest(self.proxy)

    # -- what a judge asks -----------------------------------------------------------------------

    @property
    def host_pid(self) -> int:
        """The training."""
        return self._host.pid

    @property
    def host_code(self) -> int:
        """How it ended: its exit status, or minus the signal."""
        return int(self._host.wait())

    @property
    def child_pid(self) -> int | None:
        """The process that it forked; None where it came not that far."""
        path = self.folder / truth.CHILD_PID
        return int(path.read_text()) if path.exists() else None

    # -- the way back to order -------------------------------------------------------------------

    def settle(self) -> None:
        """Have everything arrive: who works goes on by himself, else ``autolog sync`` is called.

        Raises ``AssertionError`` where that takes too long.
        """
        eventually(lambda: self._host.poll() is not None, _PATIENCE)
        eventually(self._child_is_gone, _PATIENCE)
        # A token that has expired is renewed for nobody who runs: such a shipper gives way to sync.
        if not self.episode.has("expire credential"):
            eventually(lambda: not self._sends(), _PATIENCE)
        if not self._is_settled():
            self._sync()

    def journals(self) -> list[Path]:
        """Every journal of the training's processes."""
        return [folder for folder in journals(self.home) if folder.parent.name != HELD]

    def _is_settled(self) -> bool:
        found = list(journals(self.home))
        return len(found) == len(self.journals()) and all(inspect(each).is_sent for each in found)

    def _sync(self) -> None:
        self.note("autolog sync")
        self.was_synced = True
        with (self.folder / "sync.log").open("ab") as said:
            subprocess.run(
                [sys.executable, "-m", "autolog", "sync"],
                timeout=_PATIENCE,
                check=False,
                **self._surroundings(said),
            )

    def _surroundings(self, said: IO[bytes]) -> dict[str, Any]:
        """What a process has to do with its world."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": said}
        return {"cwd": self.folder, "env": self._environ, **streams}

    def _sends(self) -> list[Path]:
        """The groups that somebody sends."""
        return [lock.parent for lock in self.home.glob(f"*/{SHIPPER_LOCK}") if is_locked(lock)]

    def _shipper(self) -> int | None:
        pids = (shipper_state(group).pid for group in self._sends())
        return next(filter(None, pids), None)

    def _child(self) -> int:
        pid = self.child_pid
        if pid is None or not psutil.pid_exists(pid):
            raise Missed("there is no child")
        return pid

    def _child_is_gone(self) -> bool:
        try:
            return psutil.Process(self._child()).status() == psutil.STATUS_ZOMBIE
        except (Missed, psutil.NoSuchProcess):
            return True
