"""What is logged of the training that one run holds."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from autolog import guard, recorder
from autolog.callbacks import datasets
from autolog.callbacks.datasets import TRAIN, Used
from autolog.callbacks.modules import Inputs, as_model
from autolog.callbacks.ranks import EpochLoss
from autolog.callbacks.tensors import optimizer_params, plain
from autolog.callbacks.torch import watched
from autolog.callbacks.torch.epochs import Trained, Validated

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.optim import Optimizer

    from autolog.callbacks.torch.passes import Pass
    from autolog.recorder import Training

_FEWEST_STEPS: Final = 10
"""Without a loader, optimizers whose first steps are closer together than this share a run."""

_DIGITS: Final = 3
"""Without a loader, the steps are logged whose numbers have zeros behind so many digits."""


class RunLog:
    """Epochs, steps and params of a run; its optimizers are numbered as they come."""

    def __init__(
        self, training: Training, name: str, numbers: dict[int, int], planned: int | None
    ) -> None:
        """`numbers` has those of the living optimizers, by id; `planned` epochs are expected."""
        self.training = training
        self._losses = EpochLoss(training, name, training.first_epoch)
        self._numbers, self._planned = numbers, planned
        self._trained = 0
        """Epochs so far."""
        self._undescribed: dict[int, weakref.ReferenceType[Optimizer]] = {}
        """Optimizers whose params are logged when they outlive an epoch."""
        self._rates: dict[int, object] = {}
        self._steps: list[int] = []
        self._every = recorder.get().settings.log_every_n_steps
        self._logs_steps = self._every is not None
        self._first: Trained | None = None
        """The first epoch, until the next one begins: the line of the user's own program that logs
        its loss, if there is one, comes after the loop over the loader."""
        self._inputs = Inputs()
        """Those of the model, as far as they are known."""
        self._has_model = False
        self._due: list[tuple[Pass, int, int, int]] = []
        """Batch values to log: pass, index of the step there, optimizer, its global step."""

    @property
    def is_over(self) -> bool:
        """True when somebody else has ended the run."""
        run = self.training.run
        return run is not None and run.status is not None

    @property
    def has_just_begun(self) -> bool:
        """True while so few steps are made that another optimizer may be part of the same loop."""
        made = sum(self._steps) - len(self._steps) * self.training.first_step
        return made < _FEWEST_STEPS

    def log_model(self, model: Module) -> None:
        """Log the model that was said to be trained, once."""
        chosen = recorder.get().settings
        if chosen.log_models and not self._has_model:
            self._has_model = True
            self.training.log_model(as_model(model, inputs=self._inputs), chosen)

    # -- steps -------------------------------------------------------------------------------------

    def add_optimizer(self, optimizer: Optimizer, *, is_first: bool) -> int:
        """The number of an optimizer that has not stepped here before."""
        number = len(self._steps)
        self._steps.append(self.training.first_step)
        if not is_first:
            self._undescribed[number] = weakref.ref(optimizer)
        return number

    def add_steps(self, number: int, count: int, rate: object) -> None:
        """An optimizer has made so many steps, the last one with this learning rate."""
        self._steps[number] += count
        self._rates[number] = rate

    def regular_steps(self, number: int) -> int:
        """So many more steps of an optimizer may pass before one is to be logged by itself."""
        if self._due:
            return 0
        done, every = self._steps[number], self._every
        return every - 1 - done % every if every is not None else sys.maxsize

    def log_step(self, number: int, stepped: Pass) -> None:
        """Log the step that an optimizer has just made on a pass, if it is due."""
        if self._logs_steps and self._is_due(self._steps[number], stepped):
            self._due.append((stepped, len(stepped.owners) - 1, number, self._steps[number]))
        self._log_due_steps()

    def _is_due(self, step: int, stepped: Pass) -> bool:
        if self._every is not None:
            return step % self._every == 0
        return bool(stepped.is_bare and step % 10 ** max(0, len(str(step)) - _DIGITS) == 0)

    def _log_due_steps(self) -> None:
        """Log the batch values that have left their device."""
        while self._due:
            stepped, index, number, step = self._due[0]
            if stepped.losses.values.known < stepped.ends[index]:
                return
            del self._due[0]
            name = f"batch_loss.{number}" if number else "batch_loss"
            self.training.log_batch_metrics({name: stepped.step_loss(index)}, step)

    # -- epochs ------------------------------------------------------------------------------------

    def log_epochs(self, finished: list[Trained | Validated]) -> None:
        """Log epochs that have finished."""
        self._log_due_steps()
        for epoch in finished:
            if isinstance(epoch, Validated):
                metrics = _validation_metrics(epoch)
                self.training.log_metrics(metrics, self.training.first_epoch + epoch.number)
                continue
            self.log_first()
            if self._trained:
                self._log_training(epoch)
            else:
                self._first = epoch

    def log_first(self) -> None:
        """Log the first epoch, if it waits."""
        first, self._first = self._first, None
        if first is not None:
            self._log_training(first)

    def conclude(self) -> None:
        """Log what is known only at the end."""
        self.log_first()
        self._describe_others(self._numbers.values())
        self._losses.settle()
        self.training.note_step(max(self._steps, default=0))
        if self._trained and self._planned is None:
            self.training.log_params({"epochs": self._trained})

    def _log_training(self, epoch: Trained) -> None:
        alive = set(self._numbers.values())
        # An optimizer that did not outlive the epoch worked on something inside of it.
        sums = {n: pair for n, pair in epoch.sums.items() if n in alive} or epoch.sums
        if not sums:
            return
        self._describe_others(alive)
        first = min(sums)
        metrics = {"learning_rate": plain(self._rates[first])}
        if epoch.seconds > 0:
            metrics["steps_per_second"] = epoch.steps[first] / epoch.seconds
        self._losses.log(epoch.number, sums)
        self.training.log_metrics(
            {name: value for name, value in metrics.items() if isinstance(value, float)},
            self.training.first_epoch + epoch.number,
        )
        self._trained = epoch.number + 1

    # -- params ------------------------------------------------------------------------------------

    def describe(self, optimizer: Optimizer, model: Module | None, current: Pass) -> None:
        """Log what is known when the first optimizer has stepped on a pass."""
        params = optimizer_params(optimizer)
        if model is not None:
            params |= watched.model_params(model)
            self._inputs = current.inputs or Inputs()
        if current.source is not None:
            params["batch_size"] = current.source.batch_size or current.weights[0]
            data = current.source.data
            datasets.log(self.training, lambda: [Used(TRAIN, data)])
        elif current.is_bare:
            self._logs_steps = True
            guard.say_once(
                "torch:no loader",
                "this training uses no DataLoader, so its epochs cannot be told, and only its "
                "steps are logged, as batch_loss; mark its epochs with "
                "'for epoch in autolog.epochs(n):'",
            )
        if self._planned is not None:
            params["epochs"] = self._planned
        self.training.log_params(params)

    def _describe_others(self, alive: Iterable[int]) -> None:
        """Log the params of the living optimizers after the first."""
        for number in self._undescribed.keys() & alive:
            optimizer = self._undescribed.pop(number)()
            if optimizer is not None:
                params = optimizer_params(optimizer)
                self.training.log_params({f"{name}.{number}": v for name, v in params.items()})


def _validation_metrics(epoch: Validated) -> dict[str, float]:
    if epoch.is_partial:
        guard.say_once(
            "torch:part of a loss",
            "what this training propagates back is more than the value of its loss module, so that "
            "no val_loss is logged: log it with autolog.log_metrics",
        )
        return {}
    if epoch.score is None:
        guard.say_once(
            "torch:criteria",
            "a validation calls several criteria a batch, and how they add is not known: "
            "log its loss with autolog.log_metrics",
        )
        return {}
    name = f"val_loss.{epoch.dataset}" if epoch.dataset else "val_loss"
    return {name: epoch.score}
