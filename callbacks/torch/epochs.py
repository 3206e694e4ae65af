"""What the events of a training loop add up to: a pure state machine, one a thread.

In go the passes over loaders, the losses that are propagated back, the optimizer steps and the
values of criteria; out come epochs. Nothing here knows torch: loaders and iterators are opaque
save for ``loader.dataset`` and ``loader.sampler``, losses are whatever `Values` takes.
"""

from __future__ import annotations

import weakref
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

_WHOLE_DATASET = frozenset(["SequentialSampler", "RandomSampler", "DistributedSampler"])


class Values(Protocol):
    """A growing list of numbers that may still be on a device; iterating waits for them all."""

    @property
    def known(self) -> int:
        """So many of the first numbers can be read without waiting."""

    def append(self, value: Any, /) -> None:
        """Take a value."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> float: ...

    def __iter__(self) -> Iterator[float]: ...


@dataclass(frozen=True, slots=True)
class Epoch:
    """One finished pass over a loader."""

    number: int
    """Index of the training epoch, from 0; a validation carries that of the newest training."""
    losses: dict[int, float] = field(default_factory=dict)
    """Of a training: the mean loss of each optimizer, over samples."""
    score: float | None = None
    """Of a validation: the mean of its criterion, over samples."""
    validation: int = 0
    """Which of the datasets that were validated since this training epoch began."""


class _Heard:
    """Values with the number of batches that the loader had given when each was heard."""

    __slots__ = ("batches", "last", "positions", "values")

    def __init__(self, values: Values) -> None:
        self.values = values
        self.positions = array("q")
        self.last = -1
        """The newest position."""
        self.batches = 0
        """Batches that had a value."""

    def add(self, value: object, position: int) -> None:
        if position != self.last:
            self.batches += 1
            self.last = position
        self.positions.append(position)
        self.values.append(value)


class Pass:
    """One pass over one loader, or one step of a loop that has none."""

    def __init__(
        self, values: Callable[[], Values], loader: object = None, iterator: object = None
    ) -> None:
        self.loader_ref = _weakly(loader)
        self._iterator = _weakly(iterator)
        self.zipped_to: Pass | None = None
        """The pass that had begun just before and had given nothing yet, as in ``zip(a, b)``."""
        self.weights = array("q")
        """Samples in each batch."""
        self.losses, self.scores = _Heard(values()), _Heard(values())
        self.divisors = array("q")
        self.owners = array("q")
        """The optimizer of each step."""
        self.ends = array("q")
        """How many losses had been heard by each step."""
        self.rhythm: dict[int, int] = {}
        """The most batches that an optimizer accumulated for one step."""
        self.is_exhausted = self.has_graph = False
        self._batches_at_step = 0

    @property
    def loader(self) -> Any:
        """The loader, None when it is gone."""
        return self.loader_ref()

    @property
    def position(self) -> int:
        """Batches given so far; the end of the loader counts as one more."""
        return len(self.weights) + self.is_exhausted

    @property
    def is_abandoned(self) -> bool:
        """True when nothing can ever advance this pass again."""
        return self._iterator() is None

    @property
    def is_spent(self) -> bool:
        """True when it was left in the middle and the optimizer has stepped on its last batch."""
        is_done = self.losses.last == self.position and not self.unowned
        return is_done and not self.is_exhausted and self.is_abandoned

    @property
    def has_caught_up(self) -> bool:
        """True when every batch had its loss, or its score."""
        return max(self.losses.batches, self.scores.batches) >= len(self.weights)

    @property
    def unowned(self) -> int:
        """Losses that no step followed yet."""
        return len(self.losses.positions) - (self.ends[-1] if self.ends else 0)

    def step(self, owner: int) -> None:
        """An optimizer steps on the losses heard since the last step."""
        accumulated = self.losses.batches - self._batches_at_step
        self._batches_at_step = self.losses.batches
        self.rhythm[owner] = max(self.rhythm.get(owner, 1), accumulated)
        self.owners.append(owner)
        self.ends.append(len(self.losses.positions))

    def mean_losses(self) -> dict[int, float]:
        """The mean loss of each optimizer over the samples of its batches.

        Losses after the last step belong to the only optimizer there is, or to none.
        """
        values, sums = list(self.losses.values), dict[int, list[float]]()
        owners, ends = list(self.owners), list(self.ends)
        if self.unowned and len(self.rhythm) == 1:
            owners.append(owners[0])
            ends.append(len(values))
        shift = self._shift(self.losses)
        begin = 0
        for owner, end in zip(owners, ends, strict=True):
            of_owner = sums.setdefault(owner, [0.0, 0.0])
            self._add(of_owner, values, owner, range(begin, end), shift)
            begin = end
        return {owner: _ratio(*pair) for owner, pair in sums.items() if pair[1]}

    def step_loss(self, step: int) -> float:
        """The mean loss of one step, by its index; only for a step whose values are `known`."""
        begin = self.ends[step - 1] if step else 0
        pair = [0.0, 0.0]
        self._add(pair, self.losses.values, self.owners[step], range(begin, self.ends[step]), 1)
        return _ratio(*pair)

    def mean_score(self) -> float | None:
        """The mean score over samples; None where a batch had several, as sums are not known."""
        if self.scores.batches < len(self.scores.positions):
            return None
        total = [0.0, 0.0]
        shift = self._shift(self.scores)
        for value, position in zip(self.scores.values, self.scores.positions, strict=True):
            weight = self._weight(position - shift)
            total[0] += weight * value
            total[1] += weight
        return _ratio(*total)

    def _add(self, sums: list[float], values: Any, owner: int, losses: range, shift: int) -> None:
        """Add losses of one step to [sum of weight x loss, sum of weight].

        Those of one batch are parts of its loss; a loss divided by the number of batches that the
        optimizer accumulates is multiplied back.
        """
        rhythm, before = self.rhythm.get(owner, 1), -1
        for index in losses:
            position, divisor = self.losses.positions[index], self.divisors[index]
            weight = self._weight(position - shift)
            sums[0] += weight * values[index] * (divisor if divisor == rhythm else 1)
            sums[1] += weight if position != before else 0
            before = position

    def _shift(self, heard: _Heard) -> int:
        """What to take off a position for the index of its batch.

        A wrapper that looks one batch ahead, as accelerate's, meets the end of the loader before
        the last batch is used: then each value came one batch late.
        """
        is_late = heard.batches > 1 and heard.last > len(self.weights)
        return 2 if is_late else 1

    def _weight(self, batch: int) -> int:
        if not self.weights:
            return 1
        return self.weights[min(max(batch, 0), len(self.weights) - 1)]


class Tracker:
    """Follows the loops of one thread; finished epochs gather in `finished` for the caller to take.

    Owners are small numbers that the caller gives to optimizers.
    """

    def __init__(self, values: Callable[[], Values]) -> None:
        self.finished: list[Epoch] = []
        self.epochs = 0
        """Training epochs since the start or the last `restart`."""
        self._values = values
        self._open: list[Pass] = []
        self._trained: Callable[[], Any] | None = None
        self._validated: list[Callable[[], Any]] = []
        self._depth = 0
        self._closure_heard = False
        self.current = self._no_loader = Pass(values)
        """The pass that a loss would belong to now."""

    # -- passes ------------------------------------------------------------------------------------

    def begin(self, loader: object, iterator: object) -> Pass:
        """A loader is iterated: a new pass begins, and those that cannot go on end."""
        for each in list(self._open):
            if each.is_exhausted or each.is_abandoned or each.loader is loader:
                self._close(each)
        fresh = Pass(self._values, loader, iterator)
        if self.current is not self._no_loader and not self.current.weights:
            fresh.zipped_to = self.current
        self._enter(fresh)
        return fresh

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
        return not ended.owners and (ended.has_graph or bool(ended.losses.positions))

    def _enter(self, entered: Pass) -> None:
        self._open.append(entered)
        self.current = entered

    # -- what is computed on a batch ---------------------------------------------------------------

    def loss(self, value: object, divisor: int = 1) -> None:
        """A loss, which had been divided by an integer, is propagated back.

        In a step that evaluates its closure again and again only the first one counts.
        """
        if self._depth:
            if self._closure_heard:
                return
            self._closure_heard = True
        current = self.current
        if current.losses.last == current.position and current.is_spent:
            self._close(current)
            current = self.current
        current.divisors.append(divisor)
        current.losses.add(value, current.position)

    def wants_score(self) -> bool:
        """True when the value of a criterion may turn out to be a validation's."""
        return self.current is not self._no_loader and not self.current.losses.positions

    def score(self, value: object, *, has_graph: bool) -> None:
        """A criterion gives a value, perhaps one that can still be propagated back."""
        self.current.has_graph |= has_graph
        self.current.scores.add(value, self.current.position)

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
        if stepped is self._no_loader:
            self.current = self._no_loader = Pass(self._values)
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
        for each in list(self._open):
            if each is not self.current:
                self._close(each)
        self.epochs = 0
        self._trained = None
        self._validated.clear()

    def finish(self) -> None:
        """Close every pass."""
        for each in list(self._open):
            self._close(each)

    def _close(self, closed: Pass) -> None:
        self._open.remove(closed)
        self.current = self._open[-1] if self._open else self._no_loader
        if closed.owners:
            self._close_training(closed)
        elif closed.scores.positions and not closed.losses.positions:
            self._close_validation(closed)

    def _close_training(self, closed: Pass) -> None:
        self.finished.append(Epoch(self.epochs, losses=closed.mean_losses()))
        self.epochs += 1
        self._trained = closed.loader_ref
        self._validated.clear()

    def _close_validation(self, closed: Pass) -> None:
        if closed.loader is not None and self._is_training_data(closed.loader):
            return
        is_in_epoch = any(each.owners for each in self._open)
        number = self.epochs if is_in_epoch else max(0, self.epochs - 1)
        score = closed.mean_score()
        which = self._which_validation(closed)
        self.finished.append(Epoch(number, score=score, validation=which))

    def _is_training_data(self, loader: Any) -> bool:
        trained = self._trained() if self._trained is not None else None
        if trained is None or trained is loader:
            return trained is loader
        is_whole = type(getattr(loader, "sampler", None)).__name__ in _WHOLE_DATASET
        return is_whole and loader.dataset is trained.dataset

    def _which_validation(self, closed: Pass) -> int:
        """0 for the dataset validated first in this epoch, 1 for the next."""
        for index, known in enumerate(self._validated):
            other = known()
            if other is None or closed.loader is None or other.dataset is closed.loader.dataset:
                return index
        self._validated.append(closed.loader_ref)
        return len(self._validated) - 1


def _weakly(thing: object) -> Callable[[], Any]:
    return (lambda: None) if thing is None else weakref.ref(thing)


def _ratio(total: float, weight: float) -> float:
    return total / weight if weight else 0.0
