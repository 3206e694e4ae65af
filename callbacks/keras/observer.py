"""`Observer`: Keras' events, turned into the verbs of a training."""

# ruff: noqa: ARG002 - callbacks take what Keras passes

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from autolog import guard, recorder
from autolog.callbacks import datasets
from autolog.callbacks.keras import models, neighbours
from autolog.callbacks.keras.companions import Companions
from autolog.callbacks.keras.neighbours import SUMMARY, Neighbour
from autolog.callbacks.keras.optimizers import Optimizers
from autolog.callbacks.keras.reading import numbers, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from autolog.callbacks.datasets import Used
    from autolog.recorder import Training


class Observer(keras.callbacks.Callback):  # type: ignore[misc]
    """Logs the trainings in which it is the last of the callbacks, one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.training: Training | None = None
        """The one that is going on, if any."""
        self.is_taken = False
        """True while a call of ``fit`` or ``evaluate`` that it takes part in lasts."""
        self.expect({}, {}, list, [])
        self._start_anew(is_evaluation=False)

    def _start_anew(self, *, is_evaluation: bool) -> None:
        self._is_evaluation = is_evaluation
        self._has_summary = False
        self.optimizers: Optimizers | None = None
        """Those of the model, where a fit is logged."""
        self._learning_rates: dict[str, float] = {}
        self._last_step = 0
        self._neighbour = Neighbour()
        self._offset: int | None = None
        """Leads from Keras' count of epochs to the steps of the run, once that is known."""

    def expect(
        self,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        data: Callable[[], Iterable[Used]],
        others: Iterable[Any],
    ) -> None:
        """Take note of what is known of the ``fit`` that comes next, and of its other callbacks."""
        self._fit_params, self._fit_tags, self._fit_data = params, tags, data
        self._others = list(others)
        self._companions = Companions(self._others)

    def abandon(self, error: BaseException) -> None:
        """End the run of a training that an exception has ended."""
        training = self._audible
        if training is not None:
            with guard.shield("keras.abandon"):
                self._log_optimizers(training)
        if self.training is not None:
            self.training.__exit__(type(error), error, error.__traceback__)
        self._forget()

    # -- a fit -------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Open the run, with params and summary."""
        with guard.shield("keras.on_train_begin"):
            training = self._begin(is_evaluation=False)
            if training.silent:
                return
            self._look_for_neighbours(training)
            known = getattr(self, "params", None) or {}  # Keras 3.3 sets none before it is told
            progress = {k: v for k, v in known.items() if k != "verbose"}
            training.log_params(self._neighbour.leaves({**progress, **self._fit_params}))
            training.set_tags(self._fit_tags)
            if not self._neighbour.logs_datasets:
                datasets.log(training, self._fit_data)
            training.log_params(self._neighbour.leaves(self._companions.params()))
            self.optimizers = Optimizers(self.model)
            self._log_optimizers(training)
            self._log_summary(training)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Read the learning rates; at the first epoch, find the place of the fit on the axis."""
        training = self._audible
        if training is None:
            return
        with guard.shield("keras.on_epoch_begin"):
            if self._offset is None:
                self._offset = max(0, training.first_epoch - epoch)
            if self.optimizers is not None:
                self._learning_rates = self.optimizers.learning_rates()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Log what Keras reports of the epoch."""
        training = self._audible
        if training is None:
            return
        with guard.shield("keras.on_epoch_end"):
            reported = numbers(logs)
            epoch_loss = {"epoch_loss": reported["loss"]} if "loss" in reported else {}
            rates = self.optimizers.named(self._learning_rates) if self.optimizers else {}
            self._last_step = epoch + (self._offset or 0)
            metrics = {**epoch_loss, **rates, **reported}
            training.log_metrics(
                self._neighbour.leaves_of_epoch(metrics, reported), self._last_step
            )
            self._log_summary(training)
            self._companions.note_epoch(epoch, logs or {}, training)
            self._log_optimizers(training)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Log how the training came to its end, and end the run."""
        training = self._audible
        if training is not None:
            with guard.shield("keras.on_train_end"):
                offset = self._offset or 0
                outcome = self._neighbour.leaves(self._companions.outcome(offset))
                training.log_metrics(outcome, self._last_step)
                for restored, step in self._companions.restored(offset):
                    training.log_metrics(restored, step)
            with guard.shield("keras.model"):
                if recorder.get().settings.log_models and not self._neighbour.logs_models:
                    models.log(training, self.model, self._fit_data)
        self._end()

    # -- an evaluation -----------------------------------------------------------------------------

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Open a run for an evaluation, unless it is the validation of a fit."""
        if self.training is None:
            with guard.shield("keras.on_test_begin"):
                self._begin(is_evaluation=True)

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Log what the evaluation found, at the epoch the model has come to."""
        if not self._is_evaluation:
            return
        training = self._audible
        if training is not None:
            with guard.shield("keras.on_test_end"):
                metrics = {f"test_{name}": value for name, value in numbers(logs).items()}
                training.log_metrics(metrics, max(0, training.first_epoch - 1))
        self._end()

    # -- both --------------------------------------------------------------------------------------

    @property
    def _audible(self) -> Training | None:
        """The training, where it is to be logged."""
        return None if self.training is None or self.training.silent else self.training

    def _begin(self, *, is_evaluation: bool) -> Training:
        self._start_anew(is_evaluation=is_evaluation)
        model = self.model
        self.training = recorder.get().begin_training(
            model, flavor="keras", name=type(model).__name__
        )
        return self.training

    def _end(self) -> None:
        if self.training is not None:
            self.training.end()
        self._forget()

    def _forget(self) -> None:
        self.training = None
        self.optimizers = None
        self.expect({}, {}, list, [])

    def _look_for_neighbours(self, training: Training) -> None:
        with guard.shield("keras.neighbours"):
            self._neighbour = neighbours.find(
                training, callbacks=self._others, arguments=self._fit_params, model=self.model
            )

    def _log_optimizers(self, training: Training) -> None:
        """The settings of each once it is known to train the model."""
        if self.optimizers is not None:
            training.log_params(self._neighbour.leaves(self.optimizers.new_params()))

    def _log_summary(self, training: Training) -> None:
        """Once a fit, as soon as the model has its weights."""
        if self._has_summary or not self.model.built:
            return
        self._has_summary = True
        if SUMMARY not in self._neighbour.names:
            training.log_text(summary(self.model), SUMMARY)
