"""The ways of logging that are compared, one file a package.

`begin` and `finish` run in the process that trains. `recover` and `stored` run later in another
one, which sees only what the first has left behind, however it ended.
"""

from __future__ import annotations

import abc
import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import ClassVar, NamedTuple

Log = Callable[[dict[str, float], int], object]
"""Logs the metrics of one step, as the training thread calls it."""


class Place(NamedTuple):
    """Where one process logs to."""

    folder: str
    """Its own, and the one that it works in."""
    server: str
    """Tracking URI of the MLflow server, for those that send."""
    store: str
    """URI of what is behind that server, read without it."""
    run: str
    """The run's name, of this process only."""


class Stored(NamedTuple):
    """What a reader finds."""

    points: Iterable[tuple[str, int, float]]
    """Key, step and value of each, doubles included."""
    status: str
    """Of the run, in the words of its package."""


SERVER, FILES, MEMORY = "sends to the server", "writes locally", "keeps in memory"
NOTHING = Stored((), "no run")


class Contender(abc.ABC):
    """A way of logging."""

    name: ClassVar[str]
    package: ClassVar[str]
    """The distribution whose version is stated."""
    module: ClassVar[str]
    """What has to be importable."""
    to: ClassVar[str] = FILES
    """Where it logs to."""
    call: ClassVar[str]
    """What is called for a step, and with which options."""
    environ: ClassVar[Mapping[str, str]] = {}
    """What its process needs: offline, without telemetry."""
    can_recover: ClassVar[bool] = False
    """Whether the package offers something to a user whose processes died."""

    @abc.abstractmethod
    def begin(self, place: Place) -> Log:
        """Open a run."""

    @abc.abstractmethod
    def finish(self) -> None:
        """End the run as a program that is done with it does."""

    def recover(self) -> None:
        """Do that."""
        raise NotImplementedError(self.name)

    @abc.abstractmethod
    def stored(self, place: Place) -> Stored:
        """What can be read of the run, as its package reads it."""

    @property
    def sends(self) -> bool:
        """Whether it needs the server."""
        return self.to == SERVER

    @property
    def is_installed(self) -> bool:
        """Whether it can be measured here."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """The package and its version."""
        return f"{self.package} {version(self.package)}"


_MODULES = {
    "autolog": "Autolog",
    "mlflow": "Sync Async Buffered",
    "lightning": "Lightning",
    "wandb": "WandbOffline",
    "tensorboard": "TensorBoard",
    "trackio": "Trackio",
    "neptune": "NeptuneOffline",
    "aim": "Aim",
    "dvclive": "DvcLive",
    "floor": "Floor",
}


def contenders() -> dict[str, Contender]:
    """All of them by name, in the order of the tables."""
    found: list[Contender] = [
        getattr(importlib.import_module(f"peers.contenders.{module}"), name)()
        for module, names in _MODULES.items()
        for name in names.split()
    ]
    return {contender.name: contender for contender in found}
