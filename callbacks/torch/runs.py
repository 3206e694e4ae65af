"""Which optimizers share a run."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from autolog import guard, recorder
from autolog.callbacks.tensors import Rings, Scalars
from autolog.callbacks.torch import watched
from autolog.callbacks.torch.epochs import NOBODY, Tracker
from autolog.callbacks.torch.log import RunLog
from autolog.callbacks.torch.tape import OFF, Tape
from autolog.records import Status

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer

    from autolog.callbacks.torch.passes import Pass
    from autolog.recorder import Run

_observers: set[Observer] = set()
"""Those with a run that is open."""


class Observer:
    """What one thread trains.

    Optimizers that step within one pass over a loader, or share a parameter, belong to one run.
    Another optimizer ends the open run and opens the next, unless it has stepped before and the
    one that stepped since did so for an epoch at most: then they take turns, and share the open run
    from there on.
    """

    def __init__(self) -> None:
        rings = Rings()
        self.tape = Tape()
        self._tracker = Tracker(lambda: Scalars(rings), time.monotonic)
        self._thread = threading.current_thread()
        self._log: RunLog | None = None
        """Of the open run."""
        self._model: Callable[[], Module | None] = _nothing
        """What the open training was said to train."""
        self._turns = 0
        """Of the newest loop over epochs that the user marked."""
        self._numbers: dict[int, int] = {}
        """Numbers of the optimizers of the open run, by id, while they live."""
        self._seen: set[int] = set()
        """Ids of the living optimizers that have stepped in this thread."""
        self._parameters: dict[int, weakref.ReferenceType[Tensor]] = {}
        self._last_pass: Pass | None = None
        self._last_number = 0
        self._last_turn = 0
        """The epoch from which on only the optimizer that stepped last has."""

    # -- events ------------------------------------------------------------------------------------

    @property
    def tracker(self) -> Tracker:
        """What follows the loops of this thread, told of all that has happened."""
        if self.tape.awaits != OFF:
            self._tell()
        return self._tracker

    def _tell(self) -> None:
        """Tell the tracker what the tape holds."""
        steps = self.tape.tell(self._tracker, self._last_number)
        if steps and self._log is not None:
            self._log.add_steps(self._last_number, steps, self.tape.rate)

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
        if number is None or self._log is None:
            tracker.step(NOBODY)
            return
        self._log.log_first()
        stepped = self._last_pass = tracker.current
        if number != self._last_number:
            self._last_number, self._last_turn = number, tracker.epochs
        tracker.step(number)
        self._log.add_steps(number, 1, optimizer.param_groups[0].get("lr"))
        self._log.log_step(number, stepped)
        if tracker.finished:
            self.report()
        self._expect_regular_steps(stepped, optimizer)

    def _expect_regular_steps(self, stepped: Pass, optimizer: Optimizer) -> None:
        tracker = self._tracker
        is_looped = stepped is tracker.current and stepped.source is not None
        if is_looped and not (stepped.is_exhausted or tracker.is_in_turn) and self._log is not None:
            room = self._log.regular_steps(self._last_number)
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
        return self._log is not None and self._log.is_over

    def _admit(self, optimizer: Optimizer, *, has_loss: bool) -> int | None:
        """The number of an optimizer in its run; None when none is to be opened for it."""
        if not watched.is_logged(optimizer):
            return None
        is_open = self._log is not None and not self._log.is_over
        belongs = is_open and self._belongs(optimizer, has_loss=has_loss)
        if not belongs:
            if not has_loss:
                return None
            # Where a step is compiled, Dynamo would follow the calls down to the disk.
            torch.compiler.disable(self._open)(optimizer)  # type: ignore[no-untyped-call]
        assert self._log is not None
        number = self._log.add_optimizer(optimizer, is_first=not belongs)
        self._seen.add(id(optimizer))
        self._numbers[id(optimizer)] = number
        # Finalizers run anywhere, so these two do no more than forget.
        weakref.finalize(optimizer, self._numbers.pop, id(optimizer), None).atexit = False
        weakref.finalize(optimizer, self._seen.discard, id(optimizer)).atexit = False
        for group in optimizer.param_groups:
            self._parameters.update({id(p): weakref.ref(p) for p in group["params"]})
        # Not before: without parameters it would seem orphaned to another thread.
        _observers.add(self)
        return number

    def _belongs(self, optimizer: Optimizer, *, has_loss: bool) -> bool:
        current, last, model = self.tracker.current, self._last_pass, watched.model_of(optimizer)
        is_named = model is not None and model is self._model()
        if current is last or is_named or self._takes_turns(optimizer):
            return True
        has_no_loader = current.is_bare and last is not None and last.is_bare
        if has_no_loader and self._log is not None and self._log.has_just_begun:
            return True
        return has_loss and self._shares(optimizer)

    def _takes_turns(self, optimizer: Optimizer) -> bool:
        """True when it has stepped before, and since then there was one epoch of each at most."""
        return id(optimizer) in self._seen and self.tracker.epochs - self._last_turn <= 1

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
        self._last_number, self._last_turn = 0, self.tracker.epochs
        model = watched.model_of(optimizer)
        name = type(optimizer if model is None else model).__name__
        training = recorder.get().begin_training(
            next(p for group in optimizer.param_groups for p in group["params"]),
            flavor="torch",
            name=name,
            holds=False,
        )
        planned = self._turns if self.tracker.is_in_turn else None
        self._log = RunLog(training, name, self._numbers, planned)
        self._model = weakref.ref(model) if model is not None else _nothing
        self._log.describe(optimizer, model, self.tracker.current)

    def _end(self) -> None:
        """Log what is finished and end the run."""
        self._conclude()
        self._log_model()
        ended, self._log = self._log, None
        _observers.discard(self)
        if ended is not None:
            ended.training.end()
        self._numbers.clear()
        self._parameters.clear()

    def _conclude(self) -> None:
        """Log what is finished, and what is known only at the end."""
        self.report()
        if self._log is not None and not self._log.is_over:
            self._log.conclude()

    def _log_model(self) -> None:
        model = self._model()
        if model is not None and self._log is not None and not self._log.is_over:
            self._log.log_model(model)

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
        if self._log is None or self._log.training.run is not run:
            return
        if status == Status.FINISHED:
            self.tracker.finish()
        self._conclude()
        if status == Status.FINISHED:
            self._log_model()

    @property
    def is_orphaned(self) -> bool:
        """True when the thread is gone, or the optimizers and the model."""
        if not self._thread.is_alive():
            return True
        return not self._numbers and all(ref() is None for ref in self._parameters.values())

    def report(self) -> None:
        """Log the epochs that have finished."""
        finished, self.tracker.finished = self.tracker.finished, []
        if self._log is not None and not self._log.is_over:
            self._log.log_epochs(finished)

    def log_first(self) -> None:
        """Log the first epoch, if it waits."""
        if self._log is not None:
            self._log.log_first()


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
