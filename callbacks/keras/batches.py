"""Values of single batches, where ``log_every_n_steps`` asks for them."""

# ruff: noqa: ARG002 - callbacks take what Keras passes

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from autolog import guard
from autolog.callbacks.keras.optimizers import steps_taken
from autolog.callbacks.keras.reading import numbers, scalar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autolog.callbacks.keras.observer import Observer
    from autolog.recorder import Training


class BatchValues(keras.callbacks.Callback):  # type: ignore[misc]
    """Logs values of every N-th optimizer step into the training of an observer.

    ``batch_loss`` is the loss of that batch alone, or the mean of an execution of several: what it
    added to the model's loss metric, since Keras itself reports means that run from the start of
    the epoch. Those come as ``running_<name>``.

    Steps are counted by the model's optimizer. Where there is none, or another trains the model, a
    step is a batch, and they are counted from where an earlier fit in the run came to.

    A class of its own, because Keras calls callbacks out of step with the device only while none
    of them has a batch hook. It reads the device at the batches it logs and at those before.
    """

    def __init__(self, observer: Observer, every: int) -> None:
        super().__init__()
        self._observer, self._every = observer, every
        self._loss: Any = None
        self._batches_a_step = self._batches_a_call = 1
        self._first_step = self._step = 0
        self._is_counted_by_optimizer = True
        self._has_stepped = False
        self._total = self._count = 0.0

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Find the loss metric, and how batches make up steps."""
        with guard.shield("keras.batches.on_train_begin"):
            model = self.model
            means = [m for m in model.metrics if isinstance(m, keras.metrics.Mean)]
            self._loss = next((mean for mean in means if mean.name == "loss"), None)
            accumulated = getattr(model.optimizer, "gradient_accumulation_steps", None)
            self._batches_a_step = accumulated or 1
            self._batches_a_call = model.steps_per_execution
            self._is_counted_by_optimizer, self._has_stepped = True, False

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Count from here."""
        with guard.shield("keras.batches.on_epoch_begin"):
            if self._is_counted_by_optimizer:
                self._step = steps_taken(self.model)
            self._first_step = self._step
            self._total = self._count = 0.0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Log what is due, and read the loss metric where the next batch is."""
        training = self._observer.training
        if training is None or training.silent:
            return
        with guard.shield("keras.batches.on_train_batch_end"):
            before = self._advance(batch, training)
            is_due = self._reaches_point(before, self._step)
            is_next = self._reaches_point(self._step, self._step + self._batches_a_call)
            loss = self._loss_since_last_look() if is_due or is_next else {}
            if is_due:
                running = {f"running_{name}": value for name, value in numbers(logs).items()}
                is_own = self._is_counted_by_optimizer
                step = steps_taken(self.model) if is_own else self._step
                training.log_batch_metrics({**loss, **running}, step)

    def _advance(self, batch: int, training: Training) -> int:
        """Go on to the step behind this batch of the epoch, and give the step before."""
        before, self._step = self._step, self._first_step + (batch + 1) // self._batches_a_step
        if self._step > before and not self._has_stepped:
            self._has_stepped = True
            optimizers = self._observer.optimizers
            if optimizers is not None and not optimizers.train_the_model():
                self._is_counted_by_optimizer, self._batches_a_step = False, 1
                before = self._first_step = training.first_step
                self._step = before + batch + 1
        if not self._is_counted_by_optimizer:
            training.note_step(self._step)
        return before

    def _reaches_point(self, before: int, after: int) -> bool:
        return after // self._every > before // self._every

    def _loss_since_last_look(self) -> dict[str, float]:
        """``batch_loss``; nothing where the model's ``train_step`` leaves the metric alone."""
        if self._loss is None:
            return {}
        total, count = self._total, self._count
        self._total, self._count = scalar(self._loss.total), scalar(self._loss.count)
        if self._count <= count:
            return {}
        return {"batch_loss": (self._total - total) / (self._count - count)}
