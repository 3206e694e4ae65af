"""What the events of a training loop add up to: a pure state machine, one a thread.

In go the passes over loaders, the losses that are propagated back, the optimizer steps and the
values of criteria; out come epochs. Nothing here knows torch: loaders and iterators are opaque
save for ``loader.dataset`` and ``loader.sampler``, losses are whatever `Values` takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from autolog.callbacks.torch.passes import NOBODY, Pass, Source, Values

__all__ = ["NOBODY", "Tracker", "Trained", "Validated"]

_MOST_PARTS: Final = 1000
"""Losses without a loader that wait for a step; more are forgotten, for none may ever come."""


@dataclass(frozen=True, slots=True)
class Trained:
    """One finished training epoch: a pass over a loader, or a turn of a loop marked by the user."""

    number: int
    """From 0."""
    sums: dict[int, tuple[float, float]]
    """Of each optimizer the sum of weight x loss, and the sum of weights; a weight is samples."""
    steps: dict[int, int]
    """Of each optimizer."""
    seconds: float
    """From its begin to the end of its last step."""


@dataclass(frozen=True, slots=True)
class Validated:
    """One finished pass over a loader without training."""

    number: int
    """That of the training epoch it belongs to: the one it is within, else the newest."""
    score: float | None
    """The mean of its criterion, over samples; None where it had several."""
    dataset: int = 0
    """Which of the datasets that were validated since this training epoch began."""
    is_partial: bool = False
    """True where the loss of the training is more than what a criterion gives."""


class _Turn:
    """A turn of a loop whose turns the user calls epochs."""

    def __init__(self, index: int, own: Pass) -> None:
        self.index = index
        self.own = own
        """Takes what no loader does; each step counts as a batch of one sample."""
        self.closed: list[Pass] = []
        """The passes of its epoch that have ended."""


class Tracker:
    """Follows the loops of one thread; finished epochs gather in `finished` for the caller to take.

    Owners are small numbers that the caller gives to optimizers.
    """

    def __init__(self, values: Callable[[], Values], clock: Callable[[], float]) -> None:
        """`clock` gives seconds."""
        self.finished: list[Trained | Validated] = []
        self.epochs = 0
        """Training epochs since the start or the last `restart`."""
        self._values, self._clock = values, clock
        self._open: list[Pass] = []
        self._turn: _Turn | None = None
        self._first_turn = 0
        """The number of the epoch that is the first turn."""
        self._trained: Source | None = None
        self._is_composed = False
        """True when a pass of this training was."""
        self._validated: list[Source] = []
        self._depth = 0
        self._closure_heard = False
        self.current = self._no_loader = Pass(values)
        """The pass that a loss would belong to now."""

    # -- passes ------------------------------------------------------------------------------------

    def begin(self, loader: object, iterator: object) -> Pass:
        """A loader is iterated: a new pass begins, and those that cannot go on end."""
        self._close_ended(loader)
        fresh = Pass(self._values, Source(loader), iterator)
        if self.current is not self._no_loader and not self.current.weights:
            fresh.zipped_to = self.current
        self._enter(fresh)
        return fresh

    def _close_ended(self, loader: object = None) -> None:
        """Close what cannot go on, and the passes over a loader that is iterated again."""
        self._leave_abandoned_turn()
        for each in list(self._open):
            is_same = each.source is not None and each.source.is_of(loader)
            if each.is_exhausted or each.is_abandoned or is_same:
                self._close(each)

    def advance(self, moved: Pass, samples: int) -> None:
        """A pass gives a batch of so many samples."""
        if moved is not self.current:
            if moved not in self._open:  # it is over, or another thread's
                return
            self._open.remove(moved)
            self._enter(moved)
        self._depth = 0  # an exception in a step leaves its end unreported
        moved.weights.append(samples)

    def exhaust(self, ended: Pass) -> None:
        """A loader has no more batches."""
        if ended not in self._open:
            return
        is_silent = not ended.losses.positions and not ended.scores.positions
        for each in list(self._open):
            if is_silent and each.zipped_to is ended and each.position == ended.position:
                self.exhaust(each)
        ended.is_exhausted = True
        if is_silent or (ended.has_caught_up and not self._may_still_step(ended)):
            self._close(ended)

    @staticmethod
    def _may_still_step(ended: Pass) -> bool:
        """True when losses, or a criterion's values with a graph, may yet be stepped on."""
        return not ended.owners and bool(ended.criteria or ended.losses.positions)

    def _enter(self, entered: Pass) -> None:
        if not entered.begun:
            entered.begun = self._clock()
        self._open.append(entered)
        self.current = entered

    # -- loops whose turns are epochs --------------------------------------------------------------

    @property
    def is_in_turn(self) -> bool:
        """True inside a loop whose turns are epochs."""
        return self._turn is not None and not self._turn.own.is_abandoned

    def enter_turn(self, index: int, loop: object) -> None:
        """A turn begins of a loop that the user marked; `loop` lives as long as that runs."""
        self.leave_turn()
        self._close_ended()
        if index == 0:
            self._first_turn = self.epochs
        self.epochs = max(self.epochs, self._first_turn + index)
        self._turn = _Turn(index, Pass(self._values, iterator=loop))
        self._turn.own.weights.append(1)
        self._enter(self._turn.own)

    def leave_turn(self) -> None:
        """The turn ends: all that has trained in it is one epoch; loaders in the middle go on."""
        turn = self._turn
        if turn is None:
            return
        for each in list(self._open):
            if each is turn.own or each.is_exhausted or each.is_abandoned:
                self._close(each)
            elif each.is_training:
                self._close(each)
                self._enter(each.cut(self._values))
        self._turn = None
        self._end_epoch(turn.closed, turn.own.begun)

    def _leave_abandoned_turn(self) -> None:
        """A loop left by ``break`` tells nobody."""
        if self._turn is not None and self._turn.own.is_abandoned:
            self.leave_turn()

    # -- what is computed on a batch ---------------------------------------------------------------

    def loss(self, value: object, divisor: int = 1, node: int | None = None) -> None:
        """A loss, which had been divided by an integer, is propagated back.

        `node` tells what computed it before that; it is asked for only behind a criterion's value.
        In a step that evaluates its closure again and again only the first one counts.
        """
        if self._depth:
            if self._closure_heard:
                return
            self._closure_heard = True
        self._leave_abandoned_turn()
        current = self.current
        if current.losses.last == current.position and current.is_spent:
            self._close(current)
        if self.current is self._no_loader and len(current.divisors) >= _MOST_PARTS:
            self._forget_losses()
        current = self.current
        if node is not None:
            current.compare(node, divisor)
        current.divisors.append(divisor)
        current.losses.add(value, current.position)

    def _forget_losses(self) -> None:
        self.current = self._no_loader = Pass(self._values)

    def wants_score(self) -> bool:
        """True when the value of a criterion may turn out to be a validation's."""
        return self.current.source is not None and not self.current.losses.positions

    def score(self, value: object, node: int | None = None, *, is_sum: bool = False) -> None:
        """A criterion gives a value: the mean over a batch, or its sum.

        `node` tells what computed it, where it can still be propagated back.
        """
        self.current.score(value, node, is_sum=is_sum)

    # -- steps -------------------------------------------------------------------------------------

    def enter_step(self) -> None:
        """An optimizer's step begins, perhaps inside the step of another one that wraps it."""
        if self._depth == 0:
            self._closure_heard = False
        self._depth += 1

    def leave_step(self) -> bool:
        """A step ends; True when it was the outermost."""
        self._depth = max(0, self._depth - 1)
        return self._depth == 0

    def step(self, owner: int) -> None:
        """An optimizer has stepped on the losses that wait."""
        stepped = self.current
        stepped.step(owner)
        stepped.ended = self._clock()
        if self._turn is not None and stepped is self._turn.own:
            stepped.weights.append(1)
        elif stepped is self._no_loader:
            self._forget_losses()
        elif stepped.is_exhausted and stepped.has_caught_up and self._is_last_step(stepped):
            self._close(stepped)

    @staticmethod
    def _is_last_step(stepped: Pass) -> bool:
        """True when every optimizer of a pass has stepped on its last batch."""
        positions, done = stepped.losses.positions, set[int]()
        for owner, end in zip(reversed(stepped.owners), reversed(stepped.ends), strict=True):
            if positions[end - 1] != stepped.losses.last:
                break
            done.add(owner)
        return done == stepped.rhythm.keys()

    # -- ends --------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Another training begins with the losses that wait: close what the old one left open."""
        turn = self._turn
        for each in list(self._open):
            if each is not self.current and (turn is None or each is not turn.own):
                self._close(each)
        if turn is not None:
            self._end_epoch(turn.closed, turn.own.begun)
            turn.closed = []
        self.epochs = turn.index if turn is not None else 0
        self._first_turn = 0
        self._trained = None
        self._is_composed = False
        self._validated.clear()

    def finish(self) -> None:
        """Close every pass."""
        self.leave_turn()
        for each in list(self._open):
            self._close(each)

    def _close(self, closed: Pass) -> None:
        self._open.remove(closed)
        self.current = self._open[-1] if self._open else self._no_loader
        if closed.is_training:
            self._close_training(closed)
        elif closed.scores.positions and not closed.losses.positions:
            self._close_validation(closed)

    def _close_training(self, closed: Pass) -> None:
        self._trained = closed.source
        self._is_composed |= closed.is_composed
        if self._turn is None:
            self._end_epoch([closed], closed.begun)
        else:
            self._turn.closed.append(closed)

    def _end_epoch(self, passes: list[Pass], begun: float) -> None:
        if not passes:
            return
        sums, steps = dict[int, tuple[float, float]](), Counter[int]()
        for each in passes:
            steps.update(each.steps())
            for owner, (total, weight) in each.sums().items():
                before = sums.get(owner, (0.0, 0.0))
                sums[owner] = before[0] + total, before[1] + weight
        seconds = max(each.ended for each in passes) - begun
        self.finished.append(Trained(self.epochs, sums, dict(steps), seconds))
        self.epochs += 1
        self._validated.clear()

    def _close_validation(self, closed: Pass) -> None:
        if closed.source is None or (self._trained and closed.source.is_within(self._trained)):
            return
        training = [each for each in self._open if each.is_training]
        is_in_epoch = self._turn is not None or training
        number = self.epochs if is_in_epoch else max(0, self.epochs - 1)
        which = self._which_validation(closed.source)
        is_partial = self._is_composed or any(each.is_composed for each in training)
        self.finished.append(Validated(number, closed.mean_score(), which, is_partial))

    def _which_validation(self, source: Source) -> int:
        """0 for the dataset validated first in this epoch, 1 for the next."""
        for index, known in enumerate(self._validated):
            if source.shares_data(known):
                return index
        self._validated.append(source)
        return len(self._validated) - 1
