"""``epoch_loss`` of a training that several ranks of torch.distributed share, without a collective.

The first rank is the one that logs. Each other rank keeps the sums of its newest epochs in the
key-value store of the process group, under one key a training, so that nothing grows there. The
first rank looks and never waits: for an epoch whose sums are not all there it looks again when the
next one ends, and when the training does; then it logs its own mean and says so in a tag.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from autolog import environment, recorder

if TYPE_CHECKING:
    from autolog.recorder import Training

Sums = Mapping[int, tuple[float, float]]
"""By the number of an optimizer, the sum of weight x loss and the sum of weights."""

_NEWEST: Final = 16
"""Epochs that a rank keeps in the store, for a first rank that is behind."""

_begun: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)
"""Numbers the trainings of a name, in the same order on every rank."""


class EpochLoss:
    """The loss of a training's epochs: over all ranks where that can be had, else of this one.

    Logs ``epoch_loss``, the sum of the optimizers' means over samples, and with several optimizers
    ``epoch_loss.0``, ``epoch_loss.1``, …. With several ranks an epoch may be logged one later; one
    of the first rank alone sets the tag ``autolog.loss_scope=rank0``.

    Made on every rank, where the training is silent too, and with the same name.
    """

    def __init__(self, training: Training, name: str, first_epoch: int) -> None:
        """`first_epoch` is the step of the training's epoch 0."""
        self._training, self._first_epoch = training, first_epoch
        self._key = f"autolog/{name}/{next(_begun[name])}"
        self._epochs: dict[int, Sums] = {}
        """On the first rank those that wait to be logged, on another the newest."""

    def log(self, epoch: int, sums: Sums) -> None:
        """Log an epoch, counted from the start of the training; never waits for a rank."""
        if environment.world_size() == 1:
            self._write(epoch, [sums])
        elif not self._training.silent:
            self._epochs[epoch] = sums
            self._look(may_wait=epoch)
        elif recorder.get().is_mute:
            self._epochs[epoch] = sums
            self._put()

    def settle(self) -> None:
        """Log what still waits: the training, or its process group, ends."""
        if self._training.silent:
            return
        if self._epochs:
            self._look()
        _forget(self._key)

    def _look(self, may_wait: int | None = None) -> None:
        """Log the epochs that every rank has ended, and of others all but the one that may wait."""
        others = _read(self._key)
        for epoch in list(self._epochs):
            is_whole = bool(others) and all(epoch in other for other in others)
            if is_whole or epoch != may_wait:
                own = self._epochs.pop(epoch)
                self._write(epoch, [own, *(other[epoch] for other in others if is_whole)])
                if not is_whole:
                    self._training.set_tags({"autolog.loss_scope": "rank0"})

    def _put(self) -> None:
        for epoch in list(self._epochs)[:-_NEWEST]:
            del self._epochs[epoch]
        _put(self._key, self._epochs)

    def _write(self, epoch: int, ranks: list[Sums]) -> None:
        means = _means(ranks)
        metrics = {"epoch_loss": sum(means.values())}
        if len(means) > 1:
            metrics |= {f"epoch_loss.{number}": mean for number, mean in means.items()}
        self._training.log_metrics(metrics, self._first_epoch + epoch)


def _means(ranks: list[Sums]) -> dict[int, float]:
    """The mean of each optimizer over the samples of all ranks."""
    numbers = sorted(set().union(*ranks))
    totals = {n: [sum(sums[n][i] for sums in ranks if n in sums) for i in (0, 1)] for n in numbers}
    return {number: total / weight for number, (total, weight) in totals.items() if weight}


# -- the store of the process group ----------------------------------------------------------------


def _put(key: str, epochs: Mapping[int, Sums]) -> None:
    group = environment.torch_distributed()
    if group is None:
        return
    with contextlib.suppress(RuntimeError):  # its host, often the first rank, has ended
        _store(group).set(f"{key}/{group.get_rank()}", json.dumps(epochs))


def _read(key: str) -> list[dict[int, Sums]]:
    """What every other rank has put; empty where one has put nothing, or nobody can be asked."""
    group = environment.torch_distributed()
    if group is not None:
        with contextlib.suppress(RuntimeError):
            store, keys = _store(group), _keys(key)
            if store.check(keys):
                return [_decoded(text) for text in store.multi_get(keys)]
    return []


def _forget(key: str) -> None:
    """Take out what the others have put."""
    group = environment.torch_distributed()
    if group is None:
        return
    with contextlib.suppress(RuntimeError):  # there are stores that cannot
        for each in _keys(key):
            _store(group).delete_key(each)


def _keys(key: str) -> list[str]:
    return [f"{key}/{rank}" for rank in range(1, environment.world_size())]


def _decoded(text: bytes) -> dict[int, Sums]:
    return {
        int(epoch): {int(number): tuple(pair) for number, pair in sums.items()}
        for epoch, sums in json.loads(text).items()
    }


def _store(group: Any) -> Any:
    # Asked for each time: kept, it would outlive the group, and hold the port of the next one.
    return group.distributed_c10d._get_default_store()  # noqa: SLF001 - nothing public gives it
