"""What every exporter does alike: find or create runs and experiments, tell runs from batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from autolog.batching import MLFLOW, Batch
from autolog.exporters import Rejected, RunRefused, TagsRefused

if TYPE_CHECKING:
    from autolog.records import RunStart

T = TypeVar("T")

RUN_KEY = "autolog.run_key"
_PARENT = "mlflow.parentRunId"
_DEFAULT_EXPERIMENT = "0"


class Found(NamedTuple):
    """A run or an experiment that the server has."""

    id: str
    deleted: bool


def if_any(ask: Callable[[], T]) -> T | None:
    """What a server answers; None where what is asked for does not exist there."""
    try:
        return ask()
    except Rejected as refusal:
        if refusal.code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


class TrackingExporter(ABC):
    """An `Exporter` on top of MLflow's tracking calls, which a subclass makes.

    Each of those calls raises `Retryable` or `Rejected`.
    """

    limits = MLFLOW
    default_experiment: str | None = None
    """The name of the experiment of runs that name none; None where that is the one with id 0."""

    @abstractmethod
    def get_run(self, run_id: str) -> Found | None:
        """The run with that id."""

    @abstractmethod
    def search_run(self, experiment_id: str, key: str) -> Found | None:
        """The run with that value of the tag `RUN_KEY`, deleted ones included."""

    @abstractmethod
    def create_run(self, experiment_id: str, start: RunStart, tags: Mapping[str, str]) -> str:
        """Create a run; its id."""

    @abstractmethod
    def update_run(self, run_id: str, status: str, end_time: int | None) -> None:
        """Set a run's status, and its end time where one is given."""

    @abstractmethod
    def get_experiment(self, name: str) -> Found | None:
        """The experiment with that name, a deleted one included."""

    @abstractmethod
    def create_experiment(self, name: str) -> str:
        """Create an experiment; its id."""

    @abstractmethod
    def log_batch(self, batch: Batch) -> None:
        """Store a batch."""

    @abstractmethod
    def log_inputs(self, run_id: str, content: str) -> None:
        """See `Exporter.log_inputs`."""

    @abstractmethod
    def close(self) -> None:
        """See `Exporter.close`."""

    def token(self) -> str | None:
        """See `Exporter.token`."""
        return None

    def refuse_token(self) -> None:  # noqa: B027 - most have none
        """See `Exporter.refuse_token`."""

    def tend(self) -> None:  # noqa: B027 - most have nothing to do
        """See `Exporter.tend`."""

    def check(self) -> None:
        """See `Exporter.check`."""
        self.get_experiment("Default")

    def open_run(self, start: RunStart, parent_id: str | None) -> str:
        """See `Exporter.open_run`."""
        try:
            if start.run_id:
                return self._usable_run(start.run_id)
            experiment_id = self._experiment_id(start)
            run = self.search_run(experiment_id, start.key)
            if run is None:
                return self._create_run(experiment_id, start, parent_id)
        except Rejected as error:
            raise RunRefused(error.reason) from error
        return _usable(run, f"run {run.id}")

    def export(self, batch: Batch) -> None:
        """See `Exporter.export`."""
        try:
            self.log_batch(batch)
        except Rejected:
            self._usable_run(batch.run_id)
            raise

    def end_run(self, run_id: str, status: str, timestamp: int | None) -> None:
        """See `Exporter.end_run`."""
        try:
            self.update_run(run_id, status, timestamp)
        except Rejected as error:
            raise RunRefused(error.reason) from error

    def _usable_run(self, run_id: str) -> str:
        try:
            run = self.get_run(run_id)
        except Rejected as error:
            raise RunRefused(error.reason) from error
        return _usable(run, f"run {run_id}")

    def _experiment_id(self, start: RunStart) -> str:
        name = start.experiment
        if name is None and start.experiment_id is None:
            name = self.default_experiment
        if name is None:
            return start.experiment_id or _DEFAULT_EXPERIMENT
        experiment = self.get_experiment(name)
        if experiment is None:
            try:
                return self.create_experiment(name)
            except Rejected as error:
                if error.code != "RESOURCE_ALREADY_EXISTS":
                    raise
            # Another process was faster, so now it is there.
            experiment = self.get_experiment(name)
        return _usable(experiment, f"experiment {name!r}")

    def _create_run(self, experiment_id: str, start: RunStart, parent_id: str | None) -> str:
        identity = {RUN_KEY: start.key} | ({_PARENT: parent_id} if parent_id else {})
        try:
            return self.create_run(experiment_id, start, start.tags | identity)
        except Rejected as refusal:
            # One tag that the server does not take must not cost the run.
            raise TagsRefused(self.create_run(experiment_id, start, identity)) from refusal


def _usable(found: Found | None, what: str) -> str:
    if found is None:
        raise RunRefused(f"{what} is not on the server")
    if found.deleted:
        raise RunRefused(f"{what} was deleted on the server")
    return found.id
