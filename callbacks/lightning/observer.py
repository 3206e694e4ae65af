"""The callback that sees losses and params, which Lightning does not show to loggers."""

from __future__ import annotations

import importlib
from argparse import Namespace
from array import array
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from autolog import guard, recorder
from autolog.callbacks.tensors import Rings, Scalars, batch_size, is_readable, optimizer_params

if TYPE_CHECKING:
    from torch import Tensor

    from autolog.callbacks.lightning.logger import AutologLogger
    from autolog.recorder import Training

NAME_SPACES: Final = ("lightning.pytorch", "pytorch_lightning")

_FIT_ARGUMENTS: Final = ("precision", "accumulate_grad_batches", "gradient_clip_val")


def observe(trainer: Any, logger: AutologLogger) -> Any:
    """Put an observer before the trainer's callbacks that reports to `logger`.

    Returns it; None where there is one already.
    """
    if any(isinstance(callback, _Observer) for callback in trainer.callbacks):
        return None
    observer = _new_observer(_name_space_of(trainer), logger)
    # A list of its own: the one that is there may be the user's. ModelCheckpoint stays last.
    trainer.callbacks = [observer, *trainer.callbacks]
    return observer


def _name_space_of(trainer: Any) -> str:
    modules = [cls.__module__ for cls in type(trainer).__mro__]
    return next(
        space for module in modules for space in NAME_SPACES if f"{module}.".startswith(f"{space}.")
    )


def _new_observer(name_space: str, logger: AutologLogger) -> Any:
    return _observer_class(name_space)(logger)


@cache
def _observer_class(name_space: str) -> Any:
    """`_Observer` as a ``Callback`` of a name space: each has a class tree of its own."""
    callback_class = importlib.import_module(name_space).Callback
    return type("AutologObserver", (_Observer, callback_class), {"name_space": name_space})


class _Observer:
    """Reports losses and params to an `AutologLogger`; leaves nothing in checkpoints."""

    name_space: str

    def __init__(self, logger: AutologLogger) -> None:
        self._logger = logger
        self._training: Training | None = None

    def __reduce__(self) -> Any:
        return _new_observer, (self.name_space, self._logger)

    # -- hooks of Lightning ------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Tell the logger what Lightning would tell it, were it one of the trainer's."""
        with guard.shield("lightning.setup"):
            self._logger.expect(pl_module)
            if not trainer.loggers:
                self._logger.log_hyperparams(_hyper_parameters(trainer, pl_module))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the run, which the tuner and the sanity check do not get to."""
        with guard.shield("lightning.on_train_start"):
            training = self._training = self._logger.open()
            # A trainer that goes on counting has its epochs right by itself.
            self._first_epoch = max(0, training.first_epoch - trainer.current_epoch)
            training.log_params(_params(trainer, pl_module))
            self._step = trainer.global_step
            self._every = recorder.get().settings.log_every_n_steps
            self._rings = Rings()
            self._losses = _Losses(self._rings)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Begin a new mean."""
        with guard.shield("lightning.on_train_epoch_start"):
            self._losses = _Losses(self._rings)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """Take note of a loss under manual optimisation, unless a scaler has changed it."""
        if pl_module.automatic_optimization or self._is_idle:
            return
        with guard.shield("lightning.on_before_backward"):
            if trainer.scaler is None:
                self._losses.hear(loss)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Add the loss of a batch; Lightning has divided it for gradient accumulation."""
        if self._is_idle:
            return
        with guard.shield("lightning.on_train_batch_end"):
            is_automatic = pl_module.automatic_optimization
            loss = outputs.get("loss") if isinstance(outputs, Mapping) else None
            times = trainer.accumulate_grad_batches if is_automatic else 1
            self._losses.add(loss, batch, times)
            if self._every is not None and trainer.global_step != self._step:
                self._log_step(trainer.global_step, self._every)

    def _log_step(self, step: int, every: int) -> None:
        self._losses.mark(step, is_due=step // every > self._step // every)
        self._step = step
        for due, loss in self._losses.take_known():
            self._open.log_batch_metrics({"batch_loss": loss}, due)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Log the epoch's mean."""
        if self._is_idle:
            return
        with guard.shield("lightning.on_train_epoch_end"):
            loss = self._losses.mean()
            for due, value in self._losses.take_known():
                self._open.log_batch_metrics({"batch_loss": value}, due)
            if loss is not None:
                epoch = self._first_epoch + trainer.current_epoch
                self._open.log_metrics({"epoch_loss": loss}, epoch)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        """End the run by what ended the training."""
        with guard.shield("lightning.on_exception"):
            # Lightning turns SIGTERM into an exit without an error.
            is_killed = trainer.received_sigterm
            self._logger.fail(KeyboardInterrupt() if is_killed else exception)

    @property
    def _is_idle(self) -> bool:
        return self._training is None or self._training.silent

    @property
    def _open(self) -> Training:
        assert self._training is not None
        return self._training


class _Losses:
    """The losses of an epoch with the samples that each stands for."""

    def __init__(self, rings: Rings) -> None:
        self._values = Scalars(rings)
        self._factors = array("d")
        """Of each value: the samples of its batch, times what a divided loss is to be taken."""
        self._weights = array("d")
        """Of each value: the samples it adds to the total."""
        self._marked = 0
        self._due: list[tuple[int, int, int]] = []
        """Steps to log: global step, and the range of its values."""

    def hear(self, loss: Tensor) -> None:
        """A loss that is part of the batch's, unless the batch gives one itself."""
        if is_readable(loss):
            self._values.append(loss)

    def add(self, loss: object, batch: object, times: int) -> None:
        """A batch is done; `loss` is what it gave, to be taken so many times."""
        heard = len(self._values) - len(self._factors)
        samples = batch_size(batch)
        if is_readable(loss):
            self._values.append(loss)
            self._factors.extend([0.0] * heard + [samples * times])
            self._weights.extend([0.0] * heard + [samples])
        elif heard:
            self._factors.extend([samples] * heard)
            self._weights.extend([samples] + [0.0] * (heard - 1))

    def mean(self) -> float | None:
        """The mean over samples; waits for the device."""
        return self._mean(list(self._values), 0, len(self._factors))

    def mark(self, step: int, *, is_due: bool) -> None:
        """An optimizer step was made on the values since the last mark."""
        if is_due:
            self._due.append((step, self._marked, len(self._factors)))
        self._marked = len(self._factors)

    def take_known(self) -> list[tuple[int, float]]:
        """The steps that are due and whose mean is known, with that mean."""
        known = [due for due in self._due if due[2] <= self._values.known]
        self._due = self._due[len(known) :]
        means = [(step, self._mean(self._values, begin, end)) for step, begin, end in known]
        return [(step, mean) for step, mean in means if mean is not None]

    def _mean(self, values: Scalars | list[float], begin: int, end: int) -> float | None:
        weight = sum(self._weights[begin:end])
        total = sum(self._factors[i] * values[i] for i in range(begin, end) if self._factors[i])
        return total / weight if weight else None


def _params(trainer: Any, module: Any) -> dict[str, object]:
    """What is known of a fit when it starts; the user's own hyper-parameters win."""
    params: dict[str, object] = {
        "epochs": trainer.max_epochs,
        "batch_size": getattr(trainer.train_dataloader, "batch_size", None),
        **{name: getattr(trainer, name) for name in _FIT_ARGUMENTS},
    }
    for number, optimizer in enumerate(trainer.optimizers):
        suffix = f".{number}" if number else ""
        params |= {f"{name}{suffix}": v for name, v in optimizer_params(optimizer).items()}
    given = _hyper_parameters(trainer, module)
    return {name: v for name, v in params.items() if v is not None and name not in given}


def _hyper_parameters(trainer: Any, module: Any) -> dict[str, object]:
    """What ``save_hyperparameters`` saved for loggers."""
    given: dict[str, object] = {}
    if getattr(trainer, "enable_autolog_hparams", True):
        for owner in (module, trainer.datamodule):
            if getattr(owner, "_log_hyperparams", False):
                given |= flattened(owner.hparams_initial)
    given.pop("_class_path", None)  # LightningCLI's own
    return given


def flattened(params: Mapping[str, Any] | Namespace, prefix: str = "") -> dict[str, object]:
    """Nested params as one dict, with ``/`` between the names."""
    flat: dict[str, object] = {}
    for key, value in (vars(params) if isinstance(params, Namespace) else params).items():
        if isinstance(value, (Mapping, Namespace)):
            flat.update(flattened(value, f"{prefix}{key}/"))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
