"""One pass over a loader: what was heard during it, and the means that come of that; pure."""

from __future__ import annotations

import weakref
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

NOBODY: Final = -1
"""The owner of losses that are not to be logged."""

_MOST_CRITERIA: Final = 8
"""Values of criteria among which the first loss of a pass is looked for."""

_WHOLE_DATASET: Final = frozenset(["SequentialSampler", "RandomSampler", "DistributedSampler"])


class Values(Protocol):
    """A growing list of numbers that may still be on a device; iterating waits for them all."""

    @property
    def known(self) -> int:
        """So many of the first numbers can be read without waiting."""

    def append(self, value: Any, /) -> None:
        """Take a value."""

    def extend(self, numbers: Iterable[float], /) -> None:
        """Take numbers that are known."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> float: ...

    def __iter__(self) -> Iterator[float]: ...


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


class Source:
    """What is known of a loader, which may be gone before its iterator is."""

    def __init__(self, loader: Any) -> None:
        self._loader = _weakly(loader)
        self._dataset = _weakly(loader.dataset)
        self._is_whole = type(getattr(loader, "sampler", None)).__name__ in _WHOLE_DATASET
        self.batch_size: int | None = getattr(loader, "batch_size", None)

    @property
    def data(self) -> Any:
        """The loader, else its dataset, while one of them is there."""
        loader = self._loader()
        return self._dataset() if loader is None else loader

    def is_of(self, loader: object) -> bool:
        """True for the loader itself."""
        return loader is not None and self._loader() is loader

    def shares_data(self, other: Source) -> bool:
        """True when it is the same loader, or draws from the same dataset, that is still there."""
        dataset = self._dataset()
        is_same = dataset is not None and other._dataset() is dataset
        return is_same or other.is_of(self._loader())

    def is_within(self, other: Source) -> bool:
        """True when every sample is one of the other's, as far as can be told."""
        return self.shares_data(other) and (self._is_whole or other.is_of(self._loader()))


class Pass:
    """One pass over one loader, one turn of a loop without one, or a step outside of all loops."""

    def __init__(
        self,
        values: Callable[[], Values],
        source: Source | None = None,
        iterator: object = None,
    ) -> None:
        self.source = source
        self.is_bare = iterator is None
        """True for a step outside of all loops, of which no epoch comes."""
        self._iterator = _weakly(iterator)
        self.successor: Pass | None = None
        """The pass that goes on with the iterator in the next epoch."""
        self.zipped_to: Pass | None = None
        """The pass that had begun just before and had given nothing yet, as in ``zip(a, b)``."""
        self.inputs: Any = None
        """What the first batch tells of the inputs of a model, where one was named."""
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
        self.criteria: deque[tuple[int, bool]] = deque(maxlen=_MOST_CRITERIA)
        """The newest values of criteria that can be propagated back: what computed each, and
        whether it is a sum over the batch."""
        self.is_exhausted = False
        self._are_losses_sums = self._are_scores_sums = self._is_mixed = False
        self.begun = self.ended = 0.0
        """When it began, and when its last step was done."""
        self._batches_at_step = 0

    @property
    def position(self) -> int:
        """Batches given so far; the end of the loader counts as one more."""
        return len(self.weights) + self.is_exhausted

    @property
    def is_abandoned(self) -> bool:
        """True when nothing can ever advance this pass again."""
        return self._iterator() is None

    @property
    def is_training(self) -> bool:
        """True when an optimizer has stepped whose losses are logged."""
        return any(owner != NOBODY for owner in self.rhythm)

    @property
    def is_composed(self) -> bool:
        """True when what was propagated back for the first step is no single criterion's value."""
        parts = self.losses.positions[: self.ends[0]] if self.ends else array("q")
        return self._is_mixed or (bool(self.criteria) and len(set(parts)) < len(parts))

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

    def cut(self, values: Callable[[], Values]) -> Pass:
        """End this pass here; another one goes on with what is left of the loader."""
        self.successor = Pass(values, self.source, self._iterator())
        return self.successor

    def score(self, value: object, node: int | None, *, is_sum: bool) -> None:
        """A criterion gives a value, which `node` computed where it can be propagated back."""
        if node is not None:
            self.criteria.append((node, is_sum))
        self._are_scores_sums |= is_sum
        self.scores.add(value, self.position)

    def compare(self, node: int, divisor: int) -> None:
        """Tell from the first loss whether losses are what a criterion gives, and sums.

        A sum that is divided by the samples is a mean.
        """
        if self.losses.positions or not self.criteria:
            return
        is_sum = dict(self.criteria).get(node)
        self._are_losses_sums = bool(is_sum) and divisor == 1
        is_other_part = bool(is_sum) and divisor not in (1, self._weight(self.position - 1))
        self._is_mixed = is_sum is None or is_other_part

    def step(self, owner: int) -> None:
        """An optimizer steps on the losses heard since the last step."""
        accumulated = self.losses.batches - self._batches_at_step
        self._batches_at_step = self.losses.batches
        self.rhythm[owner] = max(self.rhythm.get(owner, 1), accumulated)
        self.owners.append(owner)
        self.ends.append(len(self.losses.positions))

    def steps(self) -> dict[int, int]:
        """How often each optimizer has stepped."""
        return {owner: self.owners.count(owner) for owner in self.rhythm if owner != NOBODY}

    def repeat(self, owner: int, samples: array[int], losses: array[float]) -> None:
        """As many steps of one optimizer, each on a batch that had one loss."""
        count, heard = len(samples), self.losses
        heard.positions.extend(range(len(self.weights) + 1, len(self.weights) + count + 1))
        heard.values.extend(losses)
        heard.last = heard.positions[-1]
        heard.batches += count
        self._batches_at_step = heard.batches
        self.weights.extend(samples)
        self.divisors.extend([1] * count)
        self.owners.extend([owner] * count)
        self.ends.extend(range(len(heard.positions) - count + 1, len(heard.positions) + 1))
        self.rhythm.setdefault(owner, 1)

    def sums(self) -> dict[int, tuple[float, float]]:
        """Of each optimizer the sum of weight x loss, and the sum of weights, over its batches.

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
        return {n: (pair[0], pair[1]) for n, pair in sums.items() if pair[1] and n != NOBODY}

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
            total[0] += value if self._are_scores_sums else weight * value
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
            multiple = 1 if self._are_losses_sums else weight
            sums[0] += multiple * values[index] * (divisor if divisor == rhythm else 1)
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


def _weakly(thing: object) -> Callable[[], Any]:
    """A weak reference; one to nothing where there can be none, as to a list."""
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: None


def _ratio(total: float, weight: float) -> float:
    return total / weight if weight else 0.0
