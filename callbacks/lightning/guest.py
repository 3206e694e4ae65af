"""How logger and observer join a trainer for one call, and leave it as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autolog import guard, recorder
from autolog.callbacks.lightning.logger import AppendedLogger, AutologLogger
from autolog.callbacks.lightning.observer import observe
from autolog.records import Status

if TYPE_CHECKING:
    from types import TracebackType


class Guest:
    """Context manager: inside, a trainer logs what it runs.

    A trainer with loggers gets one more, after the user's, whose first decides where checkpoints
    go. One without keeps none, so that nothing appears in ``self.logger``. An `AutologLogger` of
    the user's does it all itself; ``fast_dev_run`` and ``barebones`` trainers are left alone.
    Other hooks are silent in this thread meanwhile.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._observer: Any = None
        self._joined: AutologLogger | None = None
        self._tap: _Tap | None = None

    def __enter__(self) -> None:
        with guard.shield("lightning.join"):
            current = recorder.get()
            with current.nesting.pause():
                self._quiet = current.begin_training(self, flavor="lightning", name="")
            if not (self._trainer.fast_dev_run or self._trainer.barebones):
                self._join()

    def _join(self) -> None:
        trainer = self._trainer
        logger = next((each for each in trainer.loggers if isinstance(each, AutologLogger)), None)
        log_model = recorder.get().settings.checkpoint
        if logger is None and trainer.loggers:
            logger = self._joined = AppendedLogger(trainer.loggers[0], log_model=log_model)
            trainer.loggers = [*trainer.loggers, logger]
        elif logger is None:
            logger = self._joined = AutologLogger(log_model=log_model)
            self._tap = _Tap(trainer, logger)
        logger.runs.keep_quiet(self._quiet)
        self._observer = observe(trainer, logger)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with guard.shield("lightning.leave"):
            self._quiet.end()
            if self._joined is not None:
                self._joined.runs.end(Status.FINISHED if error is None else Status.FAILED)
            self._leave()

    def _leave(self) -> None:
        trainer = self._trainer
        trainer.callbacks = [each for each in trainer.callbacks if each is not self._observer]
        if self._tap is not None:
            self._tap.remove()
        else:
            trainer.loggers = [each for each in trainer.loggers if each is not self._joined]


class _Tap:
    """Gives a logger what a trainer without loggers would give to loggers.

    A class and no function within one, because ``ddp_spawn`` pickles the trainer.
    """

    def __init__(self, trainer: Any, logger: AutologLogger) -> None:
        self._trainer, self._logger = trainer, logger
        self._connector = trainer._logger_connector  # noqa: SLF001 - nothing public sees metrics
        self._connector.log_metrics = self

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """In the place of the connector's ``log_metrics``, which runs no code of the user's."""
        self._trainer.loggers = [self._logger]
        try:
            type(self._connector).log_metrics(self._connector, *args, **kwargs)
        finally:
            self._trainer.loggers = []

    def remove(self) -> None:
        """Have the connector as it was."""
        vars(self._connector).pop("log_metrics", None)
