"""Which optimizers share a run, and what is logged there."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Final

import torch

from autolog import guard, recorder
from autolog.callbacks.tensors import Rings, Scalars, optimizer_params, plain
from autolog.callbacks.torch.epochs import Epoch, Tracker

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from autolog.callbacks.torch.passes import Pass
    from autolog.recorder import Training

_FEWEST_STEPS: Final = 10
"""Without a loader, optimizers whose first steps are closer together than this share a run."""

_observers: set[Observer] = set()
"""Those with a run that is open."""


class Observer:
    """What one thread trains.

    Optimizers that step within one pass over a loader, or share a parameter, belong to one run.
    Another optimizer ends the open run and opens the next, unless it has stepped before: then the
    two alternate, and share the open run from there on.
    """

    def __init__(self) -> None:
        rings = Rings()
        self.tracker = Tracker(lambda: Scalars(rings))
        self._thread = threading.current_thread()
        self._training: Training | None = None
        self._numbers: dict[int, int] = {}
        """Numbers of the optimizers of the open run, by id, while they live."""
        self._seen: set[int] = set()
        """Ids of the living optimizers that have stepped in this thread."""
        self._parameters: dict[int, weakref.ReferenceType[Tensor]] = {}
        self._undescribed: dict[int, weakref.ReferenceType[Optimizer]] = {}
        """Optimizers whose params are logged when they outlive an epoch."""
        self._rates: dict[int, object] = {}
        self._steps: list[int] = []
        self._last_pass: Pass | None = None
        self._every: int | None = None
        self._due: list[tuple[Pass, int, int, int]] = []
        """Batch values to log: pass, index of the step there, optimizer, its global step."""

    # -- events ------------------------------------------------------------------------------------

    def begin(self, loader: object, iterator: object) -> Pass:
        """A loader is iterated."""
        reap()
        begun = self.tracker.begin(loader, iterator)
        self.report()
        return begun

    def stepped(self, optimizer: Optimizer) -> None:
        """The outermost step of an optimizer is done."""
        tracker = self.tracker
        has_loss = tracker.current.unowned > 0
        number = self._numbers.get(id(optimizer))
        if number is None or self._is_over:
            number = self._admit(optimizer, has_loss=has_loss)
        if number is None or not has_loss:
            return
        stepped = self._last_pass = tracker.current
        tracker.step(number)
        self._steps[number] += 1
        self._rates[number] = optimizer.param_groups[0].get("lr")
        if self._every is not None and self._steps[number] % self._every == 0:
            self._due.append((stepped, len(stepped.owners) - 1, number, self._steps[number]))
        if self._due:
            self._log_batches()
        if tracker.finished:
            self.report()

    # -- which run ---------------------------------------------------------------------------------

    @property
    def _is_over(self) -> bool:
        """True when somebody else has ended the run."""
        run = self._training.run if self._training is not None else None
        return run is not None and run.status is not None

    def _admit(self, optimizer: Optimizer, *, has_loss: bool) -> int | None:
        """The number of an optimizer in its run; None when it has no loss that would open one."""
        is_open = self._training is not None and not self._is_over
        belongs = is_open and self._belongs(optimizer, has_loss=has_loss)
        if not belongs:
            if not has_loss:
                return None
            # Where a step is compiled, Dynamo would follow the calls down to the disk.
            torch.compiler.disable(self._open)(optimizer)  # type: ignore[no-untyped-call]
        number = len(self._steps)
        self._steps.append(0)
        self._seen.add(id(optimizer))
        self._numbers[id(optimizer)] = number
        # Finalizers run anywhere, so these two do no more than forget.
        weakref.finalize(optimizer, self._numbers.pop, id(optimizer), None).atexit = False
        weakref.finalize(optimizer, self._seen.discard, id(optimizer)).atexit = False
        for group in optimizer.param_groups:
            self._parameters.update({id(p): weakref.ref(p) for p in group["params"]})
        if belongs:
            self._undescribed[number] = weakref.ref(optimizer)
        return number

    def _belongs(self, optimizer: Optimizer, *, has_loss: bool) -> bool:
        current, last = self.tracker.current, self._last_pass
        if current is last or id(optimizer) in self._seen:
            return True
        if not has_loss:
            return False
        has_no_loader = current.source is None and last is not None and last.source is None
        has_just_begun = has_no_loader and sum(self._steps) < _FEWEST_STEPS
        return has_just_begun or self._shares(optimizer)

    def _shares(self, optimizer: Optimizer) -> bool:
        known = self._parameters
        return any(
            id(p) in known and known[id(p)]() is p
            for group in optimizer.param_groups
            for p in group["params"]
        )

    def _open(self, optimizer: Optimizer) -> None:
        self.tracker.restart()
        self._end()
        self._training = recorder.get().begin_training(
            next(p for group in optimizer.param_groups for p in group["params"]),
            flavor="torch",
            name=type(optimizer).__name__,
            holds=False,
        )
        _observers.add(self)
        self._every = recorder.get().settings.log_every_n_steps
        current = self.tracker.current
        params = optimizer_params(optimizer)
        if current.source is not None:
            params["batch_size"] = current.source.batch_size or current.weights[0]
        elif self._every is None:
            guard.say_once(
                "torch:no loader",
                "this training uses no DataLoader, so its epochs cannot be told; log your losses "
                "with autolog.log_metrics, or batch losses with log_every_n_steps=N",
            )
        self._training.log_params(params)

    def _end(self) -> None:
        """Log what is finished and end the run."""
        self.report()
        if self._training is not None:
            self._training.end()
        _observers.discard(self)
        self._training = None
        for known in (self._numbers, self._parameters, self._undescribed, self._rates):
            known.clear()
        self._steps.clear()
        self._due.clear()

    def finish(self) -> None:
        """Close every pass and end the run."""
        self.tracker.finish()
        self._end()

    def close_epochs(self) -> None:
        """Log the epochs that wait for their end; the run stays open."""
        self.tracker.finish()
        self.report()

    @property
    def is_orphaned(self) -> bool:
        """True when the thread is gone, or the optimizers and the model."""
        if not self._thread.is_alive():
            return True
        return not self._numbers and all(ref() is None for ref in self._parameters.values())

    # -- what is logged ----------------------------------------------------------------------------

    def report(self) -> None:
        """Log the epochs that have finished."""
        finished, self.tracker.finished = self.tracker.finished, []
        if self._training is None or self._is_over:
            return
        self._log_batches()
        for epoch in finished:
            metrics = self._training_metrics(epoch) if epoch.losses else _validation_metrics(epoch)
            self._training.log_metrics(metrics, self._training.first_epoch + epoch.number)

    def _training_metrics(self, epoch: Epoch) -> dict[str, float]:
        alive = set(self._numbers.values())
        # An optimizer that did not outlive the epoch worked on something inside of it.
        losses = {n: loss for n, loss in epoch.losses.items() if n in alive} or epoch.losses
        self._describe(losses)
        metrics = {"epoch_loss": sum(losses.values())}
        if len(losses) > 1:
            metrics |= {f"epoch_loss.{number}": loss for number, loss in losses.items()}
        rate = plain(self._rates[min(losses)])
        if isinstance(rate, float):
            metrics["learning_rate"] = rate
        return metrics

    def _describe(self, numbers: dict[int, float]) -> None:
        """Log the params of the optimizers after the first."""
        for number in numbers.keys() & self._undescribed.keys():
            optimizer = self._undescribed.pop(number)()
            if optimizer is not None and self._training is not None:
                params = optimizer_params(optimizer)
                self._training.log_params({f"{name}.{number}": v for name, v in params.items()})

    def _log_batches(self) -> None:
        """Log the batch values that have left their device."""
        while self._due:
            stepped, index, number, step = self._due[0]
            if stepped.losses.values.known < stepped.ends[index]:
                return
            del self._due[0]
            name = f"batch_loss.{number}" if number else "batch_loss"
            if self._training is not None:
                self._training.log_batch_metrics({name: stepped.step_loss(index)}, step)


def _validation_metrics(epoch: Epoch) -> dict[str, float]:
    if epoch.score is None:
        guard.say_once(
            "torch:criteria",
            "a validation calls several criteria a batch, and how they add is not known: "
            "log its loss with autolog.log_metrics",
        )
        return {}
    name = f"val_loss.{epoch.validation}" if epoch.validation else "val_loss"
    return {name: epoch.score}


def reap() -> None:
    """End the runs that nobody can go on with."""
    for observer in list(_observers):
        if observer.is_orphaned:
            observer.finish()


def close_epochs() -> None:
    """Log the epochs of all threads that wait for their end."""
    for observer in list(_observers):
        observer.close_epochs()


def finish_all() -> None:
    """Close the epochs and end the runs of all threads."""
    for observer in list(_observers):
        observer.finish()
