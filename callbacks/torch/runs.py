"""Which optimizers share a run, and what is logged there."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, KeysView
from typing import TYPE_CHECKING, Final

import torch

from autolog import guard, recorder
from autolog.callbacks.ranks import EpochLoss
from autolog.callbacks.tensors import Rings, Scalars, optimizer_params, plain
from autolog.callbacks.torch import watched
from autolog.callbacks.torch.epochs import NOBODY, Tracker, Trained, Validated
from autolog.callbacks.torch.tape import OFF, Tape
from autolog.records import Status

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer

    from autolog.callbacks.torch.passes import Pass
    from autolog.recorder import Run, Training

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
        self.tape = Tape()
        self._tracker = Tracker(lambda: Scalars(rings), time.monotonic)
        self._thread = threading.current_thread()
        self._training: Training | None = None
        self._losses: EpochLoss | None = None
        """Of the open training."""
        self._model: Callable[[], Module | None] = _nothing
        """What the open training was said to train."""
        self._trained = 0
        """Epochs of the open training."""
        self._turns = 0
        """Of the newest loop over epochs that the user marked."""
        self._planned: int | None = None
        """The epochs that the open training was said to have."""
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
        self._last_number = 0
        self._every: int | None = None
        self._first: Trained | None = None
        """The first epoch, until the next one begins: the line of the user's own program that logs
        its loss, if there is one, comes after the loop over the loader."""
        self._due: list[tuple[Pass, int, int, int]] = []
        """Batch values to log: pass, index of the step there, optimizer, its global step."""

    # -- events ------------------------------------------------------------------------------------

    @property
    def tracker(self) -> Tracker:
        """What follows the loops of this thread, told of all that has happened."""
        if self.tape.awaits != OFF:
            self._tell()
        return self._tracker

    def _tell(self) -> None:
        """Tell the tracker what the tape holds."""
        number = self._last_number
        steps = self.tape.tell(self._tracker, number)
        if steps:
            self._steps[number] += steps
            self._rates[number] = self.tape.rate

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
        if not has_loss:
            return
        if number is None:
            tracker.step(NOBODY)
            return
        self.log_first()
        stepped = self._last_pass = tracker.current
        self._last_number = number
        tracker.step(number)
        self._steps[number] += 1
        self._rates[number] = optimizer.param_groups[0].get("lr")
        if self._every is not None and self._steps[number] % self._every == 0:
            self._due.append((stepped, len(stepped.owners) - 1, number, self._steps[number]))
        if self._due:
            self._log_batches()
        if tracker.finished:
            self.report()
        self._expect_regular_steps(stepped, optimizer)

    def _expect_regular_steps(self, stepped: Pass, optimizer: Optimizer) -> None:
        tracker = self._tracker
        is_looped = stepped is tracker.current and stepped.source is not None
        if is_looped and not (stepped.is_exhausted or self._due or tracker.is_in_turn):
            done, every = self._steps[self._last_number], self._every
            room = every - 1 - done % every if every is not None else sys.maxsize
            self.tape.begin(stepped, weakref.ref(optimizer), room)

    def empty_tape(self, optimizer: Optimizer) -> None:
        """Tell the tracker what a full tape holds, and go on with an empty one."""
        stepped = self.tape.passed
        assert stepped is not None
        self._tell()
        self._expect_regular_steps(stepped, optimizer)

    def turns(self, count: int) -> Iterator[int]:
        """``range(count)``, each turn an epoch; within another such loop only its numbers."""
        if self.tracker.is_in_turn:
            yield from range(count)
            return
        loop = _Loop()
        for index in range(count):
            with guard.shield("torch.epochs"):
                self._turns = count
                self.tracker.enter_turn(index, loop)
                self.report()
            yield index
            # Not in a ``finally``: an epoch that an exception left is none.
            with guard.shield("torch.epochs"):
                self.tracker.leave_turn()
                self.report()

    # -- which run ---------------------------------------------------------------------------------

    @property
    def _is_over(self) -> bool:
        """True when somebody else has ended the run."""
        run = self._training.run if self._training is not None else None
        return run is not None and run.status is not None

    def _admit(self, optimizer: Optimizer, *, has_loss: bool) -> int | None:
        """The number of an optimizer in its run; None when none is to be opened for it."""
        if not watched.is_logged(optimizer):
            return None
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
        current, last, model = self.tracker.current, self._last_pass, watched.model_of(optimizer)
        is_known = id(optimizer) in self._seen or (model is not None and model is self._model())
        if current is last or is_known:
            return True
        if not has_loss:
            return False
        has_no_loader = current.is_bare and last is not None and last.is_bare
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
        model = watched.model_of(optimizer)
        name = type(optimizer if model is None else model).__name__
        self._training = recorder.get().begin_training(
            next(p for group in optimizer.param_groups for p in group["params"]),
            flavor="torch",
            name=name,
            holds=False,
        )
        self._losses = EpochLoss(self._training, name, self._training.first_epoch)
        self._model = weakref.ref(model) if model is not None else _nothing
        _observers.add(self)
        self._every = recorder.get().settings.log_every_n_steps
        self._planned = self._turns if self.tracker.is_in_turn else None
        params = optimizer_params(optimizer)
        if model is not None:
            params |= watched.model_params(model)
        self._training.log_params(params | self._loop_params())

    def _loop_params(self) -> dict[str, object]:
        current = self.tracker.current
        params: dict[str, object] = {}
        if current.source is not None:
            params["batch_size"] = current.source.batch_size or current.weights[0]
        elif current.is_bare and self._every is None:
            guard.say_once(
                "torch:no loader",
                "this training uses no DataLoader, so its epochs cannot be told; mark them with "
                "'for epoch in autolog.epochs(n):', or log batch losses with log_every_n_steps=N",
            )
        if self._planned is not None:
            params["epochs"] = self._planned
        return params

    def _end(self) -> None:
        """Log what is finished and end the run."""
        self._conclude()
        ended, self._training, self._losses = self._training, None, None
        self._first, self._trained = None, 0
        _observers.discard(self)
        if ended is not None:
            ended.end()
        for known in (self._numbers, self._parameters, self._undescribed, self._rates):
            known.clear()
        self._steps.clear()
        self._due.clear()

    def _conclude(self) -> None:
        """Log what is finished, and what is known only at the end."""
        self.report()
        if self._training is None or self._losses is None or self._is_over:
            return
        self.log_first()
        self._losses.settle()
        if self._trained and self._planned is None:
            self._training.log_params({"epochs": self._trained})

    def finish(self) -> None:
        """Close every pass and end the run."""
        self.tracker.finish()
        self._end()

    def close_epochs(self) -> None:
        """Log the epochs that wait for their end; the run stays open."""
        self.tracker.finish()
        self._conclude()

    def before_end(self, run: Run, status: str) -> None:
        """The run ends; an epoch that an exception left in the middle is none."""
        if self._training is None or self._training.run is not run:
            return
        if status == Status.FINISHED:
            self.tracker.finish()
        self._conclude()

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
            if isinstance(epoch, Trained):
                self.log_first()
                if self._trained:
                    self._log_training(epoch)
                else:
                    self._first = epoch
            else:
                metrics = _validation_metrics(epoch)
                self._training.log_metrics(metrics, self._training.first_epoch + epoch.number)

    def log_first(self) -> None:
        """Log the first epoch, if it waits."""
        first, self._first = self._first, None
        if first is not None and self._training is not None:
            self._log_training(first)

    def _log_training(self, epoch: Trained) -> None:
        assert self._training is not None
        assert self._losses is not None
        alive = set(self._numbers.values())
        # An optimizer that did not outlive the epoch worked on something inside of it.
        sums = {n: pair for n, pair in epoch.sums.items() if n in alive} or epoch.sums
        if not sums:
            return
        self._describe(sums.keys())
        first = min(sums)
        metrics = {"learning_rate": plain(self._rates[first])}
        if epoch.seconds > 0:
            metrics["steps_per_second"] = epoch.steps[first] / epoch.seconds
        self._losses.log(epoch.number, sums)
        self._training.log_metrics(
            {name: value for name, value in metrics.items() if isinstance(value, float)},
            self._training.first_epoch + epoch.number,
        )
        self._trained = epoch.number + 1

    def _describe(self, numbers: KeysView[int]) -> None:
        """Log the params of the optimizers after the first."""
        for number in numbers & self._undescribed.keys():
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


def _validation_metrics(epoch: Validated) -> dict[str, float]:
    if epoch.score is None:
        guard.say_once(
            "torch:criteria",
            "a validation calls several criteria a batch, and how they add is not known: "
            "log its loss with autolog.log_metrics",
        )
        return {}
    name = f"val_loss.{epoch.dataset}" if epoch.dataset else "val_loss"
    return {name: epoch.score}


class _Loop:
    """Lives as long as a loop over epochs runs."""


def _nothing() -> None:
    """Stand in for a weak reference."""


def before_end(run: Run, status: str) -> None:
    """Log what waits for the end of a run."""
    for observer in list(_observers):
        observer.before_end(run, status)


def reap() -> None:
    """End the runs that nobody can go on with."""
    for observer in list(_observers):
        if observer.is_orphaned:
            observer.finish()


def before_flush() -> None:
    """Log what is held back."""
    for observer in list(_observers):
        observer.log_first()


def close_epochs() -> None:
    """Log the epochs of all threads that wait for their end."""
    for observer in list(_observers):
        observer.close_epochs()


def finish_all() -> None:
    """Close the epochs and end the runs of all threads."""
    for observer in list(_observers):
        observer.finish()
