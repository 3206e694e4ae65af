"""What is known of a fit: its params before it starts, its outcomes when it ends."""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from torch.nn.parameter import UninitializedParameter

from autolog.callbacks.datasets import EVAL, TRAIN, Used
from autolog.callbacks.lightning.spaces import callbacks_of
from autolog.callbacks.tensors import optimizer_params, plain

if TYPE_CHECKING:
    from torch.nn import Module

_FIT_ARGUMENTS: Final = ("precision", "accumulate_grad_batches", "gradient_clip_val")
_OF_STOPPING: Final = ("monitor", "mode", "patience")
_OF_CHECKPOINTS: Final = ("monitor", "mode", "save_top_k", "save_last")
_OF_SCHEDULES: Final = ("interval", "frequency")
_PLAIN: Final = (bool, int, float, str, list, tuple)


# -- params ----------------------------------------------------------------------------------------


def fit_params(trainer: Any, module: Any) -> dict[str, object]:
    """What is known of a fit when it starts; the user's own hyper-parameters win."""
    arguments = {
        "epochs": trainer.max_epochs,
        "batch_size": getattr(trainer.train_dataloader, "batch_size", None),
        **{name: getattr(trainer, name) for name in _FIT_ARGUMENTS},
    }
    params: dict[str, object] = {
        **{name: value for name, value in arguments.items() if value is not None},
        **_numbered(map(optimizer_params, optimizers_of(trainer))),
        **_numbered(map(_schedule_params, trainer.lr_scheduler_configs)),
        **_numbered(map(stopping_params, callbacks_of(trainer, "EarlyStopping"))),
        **_numbered(map(_checkpoint_params, callbacks_of(trainer, "ModelCheckpoint"))),
    }
    given = hyper_parameters(trainer, module)
    return {name: value for name, value in params.items() if name not in given}


def _numbered(all_params: Any) -> dict[str, object]:
    """The params of several things of a kind: those of the second with ``.1`` behind."""
    return {
        f"{name}.{number}" if number else name: value
        for number, params in enumerate(all_params)
        for name, value in params.items()
    }


def used_data(trainer: Any) -> list[Used]:
    """What a fit trains on and validates with, loader by loader."""
    return [
        *(Used(TRAIN, loader) for loader in _loaders(trainer.train_dataloader)),
        *(Used(EVAL, loader) for loader in _loaders(trainer.val_dataloaders)),
    ]


def _loaders(given: Any) -> list[Any]:
    """The loaders in whatever Lightning was given."""
    parts = given.values() if isinstance(given, Mapping) else given
    if parts is given and not isinstance(given, (list, tuple)):
        return [given]
    return [loader for part in parts for loader in _loaders(part)]


def optimizers_of(trainer: Any) -> list[Any]:
    """Those that train something: without one Lightning makes one that has no groups."""
    return [optimizer for optimizer in trainer.optimizers if optimizer.param_groups]


def _schedule_params(config: Any) -> dict[str, object]:
    """What a learning rate schedule was made with, as far as it keeps that under its names."""
    schedule = config.scheduler
    made_with = inspect.signature(type(schedule)).parameters.keys() - {"optimizer", "last_epoch"}
    kept = {name: value for name, value in vars(schedule).items() if name in made_with}
    params = {name: value for name, value in kept.items() if isinstance(value, _PLAIN)}
    params |= {name: getattr(config, name) for name in _OF_SCHEDULES}
    if config.monitor is not None:
        params["monitor"] = config.monitor
    params["name"] = type(schedule).__name__
    return {f"lr_scheduler_{name}": value for name, value in params.items()}


def stopping_params(stopping: Any) -> dict[str, object]:
    """The settings of an ``EarlyStopping``, under the names that MLflow gives them."""
    params = {name: getattr(stopping, name) for name in _OF_STOPPING}
    # Lightning turns its sign round where less is better.
    return params | {"min_delta": abs(stopping.min_delta)}


def _checkpoint_params(saving: Any) -> dict[str, object]:
    return {f"checkpoint_{name}": getattr(saving, name) for name in _OF_CHECKPOINTS}


def hyper_parameters(trainer: Any, module: Any) -> dict[str, object]:
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


def is_logged(trainer: Any, name: str) -> bool:
    """Whether the module logs a metric of that name, as far as it has done so by now.

    Lightning's own properties would tell, but compute metrics for that, over all ranks at worst.
    """
    metas = [result.meta for result in (trainer._results or {}).values()]  # noqa: SLF001
    is_due = any(
        meta.name == name and meta.logger and not (meta.on_step and meta.on_epoch) for meta in metas
    )
    return is_due or name in logged_metrics(trainer)


def logged_metrics(trainer: Any) -> Mapping[str, object]:
    """What Lightning has given to loggers, live."""
    logged: Mapping[str, object] = trainer._logger_connector._logged_metrics  # noqa: SLF001
    return logged


# -- outcomes --------------------------------------------------------------------------------------


class Stopping:
    """Follows the ``EarlyStopping`` callbacks of a trainer, to know the epoch of their best score.

    They do not keep that epoch, and with validations more or less often than once an epoch it
    cannot be computed from what they keep.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer, self._callbacks = trainer, callbacks_of(trainer, "EarlyStopping")
        self._scores = [each.best_score for each in self._callbacks]
        self._best_epochs: list[int | None] = [None for _ in self._callbacks]

    def look(self, epoch: int) -> None:
        """Take note of scores that are new since the last look; `epoch` is the one just done."""
        for number, callback in enumerate(self._callbacks):
            # A new best is a new tensor: comparing values would wait for a device.
            if callback.best_score is not self._scores[number]:
                self._scores[number] = callback.best_score
                self._best_epochs[number] = epoch

    def metrics(self, offset: int) -> dict[str, object]:
        """What became of it, under MLflow's names.

        `offset` leads from the trainer's count of epochs to the steps of the run.
        """
        return _numbered(
            self._metrics(callback, best_epoch, offset)
            for callback, best_epoch in zip(self._callbacks, self._best_epochs, strict=True)
        )

    def _metrics(self, callback: Any, best_epoch: int | None, offset: int) -> dict[str, object]:
        metrics: dict[str, object] = {"wait_count": callback.wait_count}
        if best_epoch is not None:
            metrics["best_score"] = plain(callback.best_score)
        if self._trainer.should_stop and (callback.stopped_epoch or self._asks_to_stop(callback)):
            metrics["stopped_epoch"] = callback.stopped_epoch + offset
            if best_epoch is not None:
                metrics["restored_epoch"] = best_epoch + offset
        return metrics

    def _asks_to_stop(self, callback: Any) -> bool:
        """Whether the last check of a callback ended the training.

        Its ``stopped_epoch`` is 0 after a stop in the first epoch, and without one.
        """
        if callback.wait_count >= max(1, callback.patience):
            return True
        known = self._trainer._logger_connector._callback_metrics  # noqa: SLF001 - as `logged_metrics`
        value = known.get(callback.monitor)
        if value is None:
            return False
        is_beyond = callback.monitor_op
        target, limit = callback.stopping_threshold, callback.divergence_threshold
        return bool(
            (callback.check_finite and not value.isfinite())
            or (target is not None and is_beyond(value, target))
            or (limit is not None and is_beyond(-value, -limit))
        )


def checkpoint_metrics(trainer: Any) -> dict[str, object]:
    """The best score of each ``ModelCheckpoint`` that monitors one."""
    return {
        name: plain(value)
        for name, value in _numbered(
            {"best_model_score": saving.best_model_score}
            for saving in callbacks_of(trainer, "ModelCheckpoint")
        ).items()
        if value is not None
    }


def checkpoint_tags(trainer: Any) -> dict[str, object]:
    """Where each ``ModelCheckpoint`` has put the best model, and the last one if it kept that."""
    return {
        name: value
        for name, value in _numbered(
            {"best_model_path": saving.best_model_path, "last_model_path": saving.last_model_path}
            for saving in callbacks_of(trainer, "ModelCheckpoint")
        ).items()
        if value
    }


# -- the model -------------------------------------------------------------------------------------


def summary(model: Module) -> str:
    """The layers of a model and their sizes, as text.

    Not Lightning's summary, which may have the model predict.
    """
    rows = [("Name", "Type", "Params", "Mode")]
    for name, layer in model.named_modules():
        if name:
            mode = "train" if layer.training else "eval"
            rows.append((name, type(layer).__name__, f"{_size(layer):,}", mode))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines.insert(1, "-" * (sum(widths) + 2 * len(widths) - 2))
    total, trainable = _size(model), _size(model, trainable=True)
    lines += [
        "",
        f"{trainable:,} trainable params",
        f"{total - trainable:,} non-trainable params",
        f"{total:,} params in all",
    ]
    return "\n".join(lines) + "\n"


def _size(module: Module, *, trainable: bool = False) -> int:
    """How many numbers the params hold, those aside that are not made yet."""
    params = [p for p in module.parameters() if p.requires_grad or not trainable]
    return sum(p.numel() for p in params if not isinstance(p, UninitializedParameter))
