"""The runs behind a logger: which one a training goes into, what opens it and what ends it."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from autolog import guard, recorder
from autolog.callbacks.lightning import neighbours
from autolog.recorder.training import status_of
from autolog.records import Status

if TYPE_CHECKING:
    from autolog.callbacks.lightning.neighbours import Neighbour
    from autolog.recorder import FormerRun, Training

_MODES: Final = {"fit": "training", "test": "testing"}
"""MLflow's tag ``Mode``, by what the trainer does."""


class _Fit(NamedTuple):
    run: FormerRun
    status: str


_fits: weakref.WeakKeyDictionary[Any, _Fit] = weakref.WeakKeyDictionary()
"""Of each model the last fit that opened a run: what is evaluated later belongs there."""


class Runs:
    """The runs behind a logger, one after the other."""

    def __init__(self, params: dict[str, object] | None = None) -> None:
        self.training: Training | None = None
        """The open one."""
        self._params = params or {}
        """Logged before there is a run."""
        self._trainer: Callable[[], Any] = _nothing
        self._model: Callable[[], Any] = _nothing
        self._quiet: Training | None = None
        self._forget()

    def _forget(self) -> None:
        self._neighbour: Neighbour | None = None
        self._is_fit = False
        self._continued: _Fit | None = None
        """The fit that the open run was opened for once, before an evaluation went on with it."""
        self._error: BaseException | None = None
        self._before_end: list[Callable[[Training], None]] = []

    def __reduce__(self) -> Any:
        """Without what is open, which belongs to this process."""
        return type(self), (dict(self._params),)

    # -- its beginning -----------------------------------------------------------------------------

    def keep_quiet(self, quiet: Training) -> None:
        """Take over what silences other hooks in this thread, until the run opens."""
        self._quiet = quiet

    def expect(self, trainer: Any, model: Any) -> None:
        """The run that opens next is one of `trainer` with `model`."""
        self._trainer, self._model = weakref.ref(trainer), weakref.ref(model)

    def open_fit(self, former: FormerRun | None) -> Training:
        """Open the run of a fit, which goes on with `former` if that is given."""
        self._is_fit = True
        return self.training or self._open(former)

    def open(self) -> Training:
        """The open training, else a new one; once the model was fitted, in the run of that fit."""
        if self.training is not None:
            return self.training
        trainer, model = self._trainer(), self._model()
        is_fitting = trainer is not None and trainer.training
        fit = None if model is None or is_fitting else _fits.get(model)
        training = self._open(fit and fit.run)
        if fit is not None and training.run is not None and training.run.key == fit.run.key:
            self._continued = fit
        return training

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Training]:
        """The open training, else a new one; one that only a call by hand opened is left at once.

        Otherwise the next fit would find it open.
        """
        is_late = self._is_late
        yield self.open()
        if is_late:
            self.end(Status.FINISHED)

    @property
    def _is_late(self) -> bool:
        """Whether what comes now belongs to a fit that is over."""
        trainer, model = self._trainer(), self._model()
        is_idle = trainer is not None and trainer.state.status != "running"
        return self.training is None and is_idle and model in _fits

    def _open(self, former: FormerRun | None) -> Training:
        if self._quiet is not None:
            self._quiet.end()
        trainer, model = self._trainer(), self._model()
        if trainer is not None:
            self._neighbour = neighbours.find(trainer)
        self.training = recorder.get().begin_training(
            self if model is None else model,
            flavor="lightning",
            name="AutologLogger" if model is None else type(model).__name__,
            into=former if self._neighbour is None else self._neighbour.run,
        )
        self.log_params(self._params)
        self._params.clear()
        if trainer is not None and trainer.state.fn in _MODES:
            self.training.set_tags(self._leaves({"Mode": _MODES[trainer.state.fn]}))
        return self.training

    # -- what goes into it -------------------------------------------------------------------------

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log params, in the run that opens next where none is open."""
        if self.training is None and not self._is_late:
            self._params.update(params)
            return
        with self._opened() as training:
            training.log_params(self._leaves(params))

    def log_given(self, metrics: Mapping[str, object], prefix: str, step: int) -> None:
        """Log metrics that came to the logger; this opens a run."""
        with self._opened() as training:
            if self._neighbour is not None:
                metrics = self._neighbour.leaves_metrics(metrics, prefix)
            training.log_metrics({f"{prefix}{name}": v for name, v in metrics.items()}, step)

    def log_outcomes(self, metrics: Mapping[str, object], step: int) -> None:
        """Log metrics of ours that are no series."""
        if self.training is not None:
            self.training.log_metrics(self._leaves(metrics), step)

    def log_text(self, make: Callable[[], str], path: str) -> None:
        """Log a text as an artifact; it is not made where it would not be logged."""
        if self.training is not None and not self.training.silent and self._leaves({path: None}):
            self.training.log_text(make(), path)

    def _leaves(self, given: Mapping[str, object]) -> dict[str, object]:
        return dict(given) if self._neighbour is None else self._neighbour.leaves(given)

    # -- its end -----------------------------------------------------------------------------------

    def before_end(self, finish: Callable[[Training], None]) -> None:
        """Have `finish` called when the open run is about to end."""
        self._before_end.append(finish)

    def note_error(self, error: BaseException) -> None:
        """What is open ends by `error`: FAILED, or KILLED."""
        self._error = error

    def end(self, status: str) -> None:
        """End the open training, if any, unless an error was noted as `status` says."""
        training = self.training
        if training is not None:
            for finish in self._before_end:
                with guard.shield("lightning.before_end"):
                    finish(training)
            status = status if self._error is None else status_of(self._error)
            if self._is_fit:
                self._remember(training, status)
            elif self._continued is not None and status == Status.FINISHED:
                status = self._continued.status
            training.end(status)
        self.training = None
        self._params.clear()
        self._forget()

    def _remember(self, training: Training, status: str) -> None:
        run, model = training.run, self._model()
        if model is None or run is None:
            return
        if "mlflow.autologging" in run.start.tags:
            _fits[model] = _Fit(run.as_former(), status)
        else:  # it is the user's, who has it open
            _fits.pop(model, None)


def _nothing() -> None:
    """Stand in for a weak reference."""
