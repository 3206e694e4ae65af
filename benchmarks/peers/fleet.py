"""Many processes that log at the same time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import psutil
from support import MlflowServer, eventually

from peers.contenders import Contender
from peers.harness import Process, User, user
from peers.work import METRICS

_START_SECONDS = 400
"""Longest time that all may take to import what they need, the processors being few."""


class Fleet:
    """Processes that have logged their first step, and wait for leave to go on."""

    def __init__(self, machines: list[User], trainings: list[Process]) -> None:
        self.all = trainings
        self._machines = machines
        self._allowed = 1

    def go_on(self, steps: int) -> None:
        """Let each log so many steps more."""
        self._allowed += steps
        for training in self.all:
            training.allow(self._allowed)

    def processes(self) -> list[psutil.Process]:
        """All of them, with what they have started."""
        return [process for machine in self._machines for process in machine.processes()]

    def hosts(self) -> list[psutil.Process]:
        """Those that train."""
        return [psutil.Process(training.pid) for training in self.all]

    def helpers(self) -> list[psutil.Process]:
        """What these have started."""
        hosts = {training.pid for training in self.all}
        return [process for process in self.processes() if process.pid not in hosts]


@contextlib.contextmanager
def fleet(
    contender: Contender, server: MlflowServer, machines: int, trainings: int, steps: int
) -> Iterator[Fleet]:
    """So many `trainings` on each of so many `machines`, that is, homes that share nothing.

    The first step of each is on the server: runs are open, connections are made. They have so many
    `steps` left, and then wait for leave to end.
    """
    expected = server.store.total() + METRICS * machines * trainings
    with contextlib.ExitStack() as stack:
        homes = [stack.enter_context(user(contender)) for _ in range(machines)]
        started = []
        for home in homes * trainings:
            training = home.start(home.place(server), 1 + steps, trains=False)
            training.allow(1)
            training.linger()
            started.append(training)
        for training in started:
            assert training.wait_until(lambda tally: tally.returned == 1, _START_SECONDS)
        eventually(lambda: server.store.total() == expected, _START_SECONDS, every=0.25)
        yield Fleet(homes, started)


def processor_seconds(processes: Iterable[psutil.Process]) -> float:
    """What living processes have taken so far, with the children that have ended."""
    return sum(sum(process.cpu_times()[:4]) for process in processes)


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]
