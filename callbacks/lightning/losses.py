"""The losses of an epoch with the samples that each stands for."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from autolog.callbacks.tensors import Rings, Scalars, batch_size, is_readable

if TYPE_CHECKING:
    from torch import Tensor


class Losses:
    """What the batches of an epoch gave, some of it still on its device."""

    def __init__(self, rings: Rings) -> None:
        self._values = Scalars(rings)
        self._factors = array("d")
        """Of each value: the samples of its batch, times what a divided loss is to be taken."""
        self._weights = array("d")
        """Of each value: the samples it adds to the total."""
        self._heard = 0
        """Losses since the last batch was done."""
        self._marked = 0
        self._due: list[tuple[int, int, int]] = []
        """Steps to log: global step, and the range of its values."""

    def hear(self, loss: Tensor) -> None:
        """A loss that is part of the batch's, unless the batch gives one itself."""
        if is_readable(loss):
            self._values.append(loss)
            self._heard += 1

    def add(self, loss: object, batch: object, times: int) -> None:
        """A batch is done; `loss` is what it gave, to be taken so many times."""
        samples = batch_size(batch)
        if is_readable(loss):
            self._values.append(loss)
            if self._heard:
                self._add_heard(0.0, 0.0)
            self._factors.append(samples * times)
            self._weights.append(samples)
        elif self._heard:
            self._add_heard(samples, samples)

    def _add_heard(self, factor: float, weight: float) -> None:
        """The losses heard since the last batch are parts of one, which has a weight."""
        self._factors.extend([factor] * self._heard)
        self._weights.extend([weight] + [0.0] * (self._heard - 1))
        self._heard = 0

    def sums(self) -> tuple[float, float]:
        """Over the epoch so far, samples x loss and samples; waits for the device."""
        return self._sums(list(self._values), 0, len(self._factors))

    def mark(self, step: int, *, is_due: bool) -> None:
        """An optimizer step was made on the values since the last mark."""
        if is_due:
            self._due.append((step, self._marked, len(self._factors)))
        self._marked = len(self._factors)

    def take_known(self) -> list[tuple[int, float]]:
        """The steps that are due and whose mean is known, with that mean."""
        known = [due for due in self._due if due[2] <= self._values.known]
        self._due = self._due[len(known) :]
        sums = [(step, *self._sums(self._values, begin, end)) for step, begin, end in known]
        return [(step, total / samples) for step, total, samples in sums if samples]

    def _sums(self, values: Scalars | list[float], begin: int, end: int) -> tuple[float, float]:
        total = sum(self._factors[i] * values[i] for i in range(begin, end) if self._factors[i])
        return total, sum(self._weights[begin:end])
