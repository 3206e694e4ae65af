"""The callback that sees losses, settings and outcomes, which Lightning does not show loggers."""

from __future__ import annotations

import importlib
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from autolog import environment, guard, recorder
from autolog.callbacks import datasets, ranks
from autolog.callbacks.lightning import checkpoints, facts, neighbours
from autolog.callbacks.lightning.losses import Losses
from autolog.callbacks.lightning.spaces import callbacks_of, space_of
from autolog.callbacks.modules import Inputs, as_model
from autolog.callbacks.tensors import Rings, plain

if TYPE_CHECKING:
    from torch import Tensor

    from autolog.callbacks.lightning.logger import AutologLogger
    from autolog.recorder import Training


_UNUSED = (
    *("on_train_batch_start", "on_before_zero_grad", "on_after_backward"),
    *("on_before_optimizer_step", "on_validation_batch_start", "on_validation_batch_end"),
    *("on_test_batch_start", "on_test_batch_end"),
    *("on_predict_batch_start", "on_predict_batch_end"),
)
"""Hooks of every batch that we have no use for. Lightning profiles the call of each hook that can
be called, an empty one too: that takes longer than all we do."""
_BEST = "best_model"
_SHARDING = frozenset({"DeepSpeedStrategy", "FSDPStrategy", "ModelParallelStrategy"})


def observe(trainer: Any, logger: AutologLogger) -> Any:
    """Put an observer before the trainer's callbacks that reports to `logger`.

    Returns it; None where there is one already.
    """
    if any(isinstance(callback, _Observer) for callback in trainer.callbacks):
        return None
    observer = _new_observer(space_of(trainer), logger)
    # A list of its own: the one that is there may be the user's. ModelCheckpoint stays last.
    trainer.callbacks = [observer, *trainer.callbacks]
    return observer


def _new_observer(name_space: str, logger: AutologLogger) -> Any:
    return _observer_class(name_space)(logger)


@cache
def _observer_class(name_space: str) -> Any:
    """`_Observer` as a ``Callback`` of a name space."""
    callback_class = importlib.import_module(name_space).Callback
    namespace = {"name_space": name_space, **dict.fromkeys(_UNUSED)}
    return type("AutologObserver", (_Observer, callback_class), namespace)


class _Observer:
    """Reports to an `AutologLogger`; leaves nothing in checkpoints."""

    name_space: str

    def __init__(self, logger: AutologLogger) -> None:
        self._logger = logger
        self._fit: _Fit | None = None
        """The present fit; None where nothing of it is logged."""

    def __reduce__(self) -> Any:
        return _new_observer, (self.name_space, self._logger)

    # -- hooks of Lightning ------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Tell the logger what Lightning would tell it, were it one of the trainer's."""
        with guard.shield("lightning.setup"):
            self._logger.runs.expect(trainer, pl_module)
            if not trainer.loggers:
                self._logger.log_hyperparams(facts.hyper_parameters(trainer, pl_module))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the run, which the tuner and the sanity check do not get to."""
        with guard.shield("lightning.on_train_start"):
            self._fit = None
            training = self._logger.open_fit(trainer)
            # The other ranks are silent, and give their sums to the first.
            if not training.silent or environment.rank() > 0:
                self._fit = _Fit(self._logger, training, pl_module)
                self._fit.describe(pl_module)
            # Of automatic optimisation the losses come with the batches; see `_UNUSED`.
            vars(self).pop("on_before_backward", None)
            if pl_module.automatic_optimization:
                vars(self)["on_before_backward"] = None

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Begin a new mean."""
        if self._fit is not None:
            with guard.shield("lightning.on_train_epoch_start"):
                self._fit.begin_epoch(trainer)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:  # noqa: ARG002
        """Take note of a loss under manual optimisation, unless a scaler has changed it."""
        if self._fit is None or self._fit.is_automatic:
            return
        with guard.shield("lightning.on_before_backward"):
            if trainer.scaler is None:
                self._fit.losses.hear(loss)

    def on_train_batch_end(
        self,
        trainer: Any,
        pl_module: Any,  # noqa: ARG002
        outputs: Any,
        batch: Any,
        *_: Any,
        **__: Any,
    ) -> None:
        """Add the loss of a batch; Lightning has divided it for gradient accumulation."""
        fit = self._fit
        if fit is None:
            return
        try:
            loss = outputs.get("loss") if isinstance(outputs, dict) else None
            times = trainer.accumulate_grad_batches if fit.is_automatic else 1
            fit.losses.add(loss, batch, times)
            if fit.every is not None:
                fit.log_step(trainer, fit.every)
            if fit.inputs is None:
                fit.inputs = Inputs.of(batch)
        except Exception as error:  # noqa: BLE001 - as a shield
            guard.swallow("lightning.on_train_batch_end", error)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Have the epoch's mean, to be logged by the next hook, which comes after the module's."""
        if self._fit is not None:
            with guard.shield("lightning.on_train_epoch_end"):
                self._fit.end_epoch(trainer)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:  # noqa: ARG002
        """Log the epoch before what may take long: who goes on from a checkpoint has it all."""
        if self._fit is not None:
            with guard.shield("lightning.on_save_checkpoint"):
                self._fit.log_epoch(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Log the last epoch."""
        if self._fit is not None:
            with guard.shield("lightning.on_train_end"):
                self._fit.log_epoch(trainer)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Log the models: callbacks after ours, such as weight averaging, are done with them."""
        fit, self._fit = self._fit, None
        if fit is not None:
            with guard.shield("lightning.models"):
                fit.log_models(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        """Have the run end by what ended the training."""
        with guard.shield("lightning.on_exception"):
            # Lightning turns SIGTERM into an exit without an error.
            is_killed = trainer.received_sigterm
            self._logger.runs.note_error(KeyboardInterrupt() if is_killed else exception)


class _Ended(NamedTuple):
    """An epoch that is over."""

    rate: object
    total: float
    samples: float


class _Fit:
    """What is logged of one fit."""

    def __init__(self, logger: AutologLogger, training: Training, module: Any) -> None:
        self._logger, self._training = logger, training
        trainer = module.trainer
        self.is_automatic: bool = module.automatic_optimization
        # A trainer that goes on counting has its epochs and steps right by itself.
        self._first_epoch: int = max(0, training.first_epoch - trainer.current_epoch)
        self._first_step: int = max(0, training.first_step - trainer.global_step)
        self._epoch_loss = ranks.EpochLoss(training, "lightning", self._first_epoch)
        self._epoch: int = trainer.current_epoch
        self._rate: object = None
        self._ended: _Ended | None = None
        """The epoch that is over and not logged yet."""
        self._stopping = facts.Stopping(trainer)
        self._step: int = self._first_step + trainer.global_step
        self.every = recorder.get().settings.log_every_n_steps
        """Optimizer steps between two values of batches; None where there are none."""
        self.inputs: Inputs | None = None
        """Those of the module, by the first batch."""
        self._rings = Rings()
        self.losses = Losses(self._rings)

    def describe(self, module: Any) -> None:
        """Log what is known before the first batch."""
        runs, trainer = self._logger.runs, module.trainer
        runs.before_end(partial(self._finish, trainer))
        runs.log_params(facts.fit_params(trainer, module))
        runs.log_text(partial(facts.summary, module), "model_summary.txt")
        datasets.log(self._training, partial(facts.used_data, trainer))

    def begin_epoch(self, trainer: Any) -> None:
        """A new mean begins."""
        self.log_epoch(trainer)
        self.losses = Losses(self._rings)
        if trainer.current_epoch > self._epoch:
            self._stopping.look(self._epoch)
        self._epoch = trainer.current_epoch
        optimizers = facts.optimizers_of(trainer)
        self._rate = optimizers[0].param_groups[0]["lr"] if optimizers else None

    def log_step(self, trainer: Any, every: int) -> None:
        """Log the optimizer step that the batches up to now have made, if one is due."""
        step = self._first_step + trainer.global_step
        if step != self._step:
            self.losses.mark(step, is_due=step // every > self._step // every)
            self._step = step
            self._log_known_steps()

    def _log_known_steps(self) -> None:
        for step, loss in self.losses.take_known():
            self._training.log_batch_metrics({"batch_loss": loss}, step)

    def end_epoch(self, trainer: Any) -> None:
        """The epoch is over."""
        total, samples = self.losses.sums()
        self._log_known_steps()
        self._ended = _Ended(plain(self._rate), total, samples)
        if self._training.silent:  # another rank: the first is to find its sums in time
            self.log_epoch(trainer)

    def log_epoch(self, trainer: Any) -> None:
        """Log the epoch that is over, once, except for names that the module itself logs."""
        ended, self._ended = self._ended, None
        if ended is None:
            return
        if isinstance(ended.rate, float) and self._is_free(trainer, "learning_rate"):
            self._training.log_metrics({"learning_rate": ended.rate}, self._epoch_step)
        if ended.samples and self._is_free(trainer, "epoch_loss"):
            self._epoch_loss.log(self._epoch, {0: (ended.total, ended.samples)})

    def log_models(self, trainer: Any) -> None:
        """Log the trained module, and that with the weights of the best checkpoint.

        Not where MLflow does, or each rank has a part of it only.
        """
        chosen = recorder.get().settings
        if self._training.silent or not chosen.log_models or neighbours.logs_models(trainer):
            return
        strategy = type(trainer.strategy).__name__
        if strategy in _SHARDING:
            guard.say_once(
                f"lightning.model:{strategy}",
                f"no model is logged: with {strategy} no rank has all of it. Use checkpoint=True",
            )
            return
        module = trainer.lightning_module
        package = space_of(trainer).partition(".")[0].replace("_", "-")
        example = getattr(module, "example_input_array", None)
        inputs = self.inputs or Inputs() if example is None else Inputs.of([example])
        model = partial(as_model, module, package, inputs=inputs)
        self._training.log_model(model(), chosen)
        best = checkpoints.best_of(callbacks_of(trainer, "ModelCheckpoint"))
        if best is not None:
            read_weights = partial(checkpoints.weights_in, best)
            self._training.log_model(model(read_weights=read_weights), chosen, _BEST)

    def _is_free(self, trainer: Any, name: str) -> bool:
        is_taken = facts.is_logged(trainer, name)
        if is_taken:
            guard.say_once(
                f"lightning:{name}",
                f"{name!r} is logged by your module; autolog leaves that name to it",
            )
        return not is_taken

    @property
    def _epoch_step(self) -> int:
        return self._first_epoch + self._epoch

    def _finish(self, trainer: Any, training: Training) -> None:
        """The run is about to end, well or not."""
        self.log_epoch(trainer)
        self._epoch_loss.settle()
        training.note_step(self._first_step + trainer.global_step)
        self._stopping.look(self._epoch)
        outcomes = self._stopping.metrics(self._first_epoch) | facts.checkpoint_metrics(trainer)
        self._logger.runs.log_outcomes(outcomes, self._epoch_step)
        training.set_tags(facts.checkpoint_tags(trainer))
        self._logger.finish_fit(trainer, training)
