"""What callbacks of Keras beside ours decide: when a training stops, and what is kept of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import keras

from autolog.callbacks.keras.reading import numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from autolog.recorder import Training

T = TypeVar("T")

_STOPPING = "monitor mode min_delta patience baseline restore_best_weights start_from_epoch".split()
_CHECKPOINT = "filepath monitor mode save_best_only save_weights_only save_freq".split()


class Companions:
    """The ``EarlyStopping`` and ``ModelCheckpoint`` callbacks of one fit.

    Names are those of MLflow's autologging; those of a second callback of a kind end in ``.1``.
    """

    def __init__(self, callbacks: Iterable[Any]) -> None:
        callbacks = list(callbacks)
        self._stoppings = [
            _Stopping(each) for each in callbacks if isinstance(each, keras.callbacks.EarlyStopping)
        ]
        self._checkpoints = [
            _Checkpoint(each)
            for each in callbacks
            if isinstance(each, keras.callbacks.ModelCheckpoint)
        ]

    def params(self) -> dict[str, object]:
        """How each was set up."""
        stoppings = _numbered(each.params() for each in self._stoppings)
        return {**stoppings, **_numbered(each.params() for each in self._checkpoints)}

    def note_epoch(self, epoch: int, logs: Mapping[str, Any], training: Training) -> None:
        """Look at each after an epoch of Keras' count; tag the checkpoints that it wrote."""
        for stopping in self._stoppings:
            stopping.note_epoch(epoch, logs)
        written = _numbered(each.written(epoch, logs) for each in self._checkpoints)
        if written:
            training.set_tags(written)

    def outcome(self, offset: int) -> dict[str, int]:
        """Where the training was stopped, and the epoch whose weights the model has now.

        `offset` leads from Keras' count of epochs to the steps of the run.
        """
        return _numbered(each.epochs(offset) for each in self._stoppings)

    def restored(self, offset: int) -> Iterator[tuple[dict[str, float], int]]:
        """What Keras had reported of epochs whose weights it has given back, and their steps."""
        for number, stopping in enumerate(self._stoppings):
            if stopping.has_restored:
                named = {f"restored_{name}": value for name, value in stopping.best_logs.items()}
                yield _with_number(named, number), stopping.best_epoch + offset


class _Stopping:
    """One ``EarlyStopping``, which keeps the number of the best epoch, not its metrics."""

    def __init__(self, callback: Any) -> None:
        self._callback = callback
        self.best_logs: dict[str, float] = {}

    def params(self) -> dict[str, object]:
        params = _attributes(self._callback, _STOPPING)
        # Keras itself makes it negative in the first epoch, where less is better.
        return {**params, "min_delta": abs(self._callback.min_delta)}

    def note_epoch(self, epoch: int, logs: Mapping[str, Any]) -> None:
        if self.best_epoch == epoch:
            self.best_logs = numbers(logs)

    @property
    def best_epoch(self) -> int:
        return int(self._callback.best_epoch)

    @property
    def has_restored(self) -> bool:
        """Whether, at the end of training, Keras gave the model the weights of the best epoch."""
        callback = self._callback
        return callback.restore_best_weights and callback.best_weights is not None

    def epochs(self, offset: int) -> dict[str, int]:
        epochs = {}
        if self._callback.stopped_epoch:
            epochs["stopped_epoch"] = self._callback.stopped_epoch + offset
        if self.has_restored:
            epochs["restored_epoch"] = self.best_epoch + offset
        return epochs


class _Checkpoint:
    """One ``ModelCheckpoint``, which does not say what it has written."""

    def __init__(self, callback: Any) -> None:
        self._callback = callback
        self._best = callback.best

    def params(self) -> dict[str, object]:
        params = _attributes(self._callback, _CHECKPOINT)
        return {f"checkpoint_{name}": value for name, value in params.items()}

    def written(self, epoch: int, logs: Mapping[str, Any]) -> dict[str, str]:
        """The file of this epoch, if any; nothing where files are written between epochs."""
        callback, best = self._callback, self._best
        self._best = callback.best
        if callback.save_freq != "epoch" or (callback.save_best_only and callback.best is best):
            return {}
        return {"checkpoint_path": callback.filepath.format(epoch=epoch + 1, **logs)}


def _attributes(callback: Any, names: Iterable[str]) -> dict[str, object]:
    """Those that there are: Keras 3.0 keeps fewer."""
    return {name: getattr(callback, name) for name in names if hasattr(callback, name)}


def _numbered(groups: Iterable[Mapping[str, T]]) -> dict[str, T]:
    named = (_with_number(group, number) for number, group in enumerate(groups))
    return {name: value for group in named for name, value in group.items()}


def _with_number(group: Mapping[str, T], number: int) -> dict[str, T]:
    return {f"{name}.{number}" if number else name: value for name, value in group.items()}
