"""`AutologLogger`: what Lightning asks a logger, and tells it."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import wrapt

from autolog import guard
from autolog.callbacks.lightning import checkpoints
from autolog.callbacks.lightning.facts import flattened
from autolog.callbacks.lightning.observer import observe
from autolog.callbacks.lightning.runs import Runs
from autolog.callbacks.lightning.spaces import NAME_SPACES
from autolog.records import Status

if TYPE_CHECKING:
    from argparse import Namespace

    from torch import Tensor

    from autolog.recorder import FormerRun, Training


class AutologLogger:
    """Logs what a trainer runs: ``Trainer(logger=AutologLogger())``.

    A ``Logger`` of both ``lightning.pytorch`` and ``pytorch_lightning``. It works with or without
    ``autolog.enable()``, which adds no second one beside it. One fit is one run; what the same
    model is validated or tested on later belongs to it.
    No method raises an exception of ours, waits, or makes a network call.
    With ``Trainer(enable_autolog_hparams=False)`` only ``enable()`` gives it ``epoch_loss``: such a
    trainer does not show itself to its loggers.

    Args:
        save_dir: Folder for checkpoints and other files that callbacks keep beside the logs.
            Default: the trainer's ``default_root_dir``.
        name: First folder below `save_dir`.
        version: Second folder below `save_dir`. Default: eight hex digits of its own.
        prefix: Put before the name of each of Lightning's metrics, with ``-`` between.
        log_model: Log checkpoints as artifacts: True for the best and the last at the end of the
            fit, ``"all"`` for each when it is saved. Every one is copied to the local disk first.
            Default False.
        resume: ``"auto"`` has a fit from a checkpoint go on with the run that the checkpoint is
            from: which that is stands in ``autolog.json`` beside it, written when a logger with
            this option saw it saved. Default None: a run of its own.
    """

    group_separator = "/"

    def __init__(
        self,
        save_dir: str | None = None,
        *,
        name: str = "lightning_logs",
        version: str | None = None,
        prefix: str = "",
        log_model: Literal["all"] | bool = False,
        resume: Literal["auto"] | None = None,
    ) -> None:
        if log_model not in (False, True, "all"):
            raise ValueError(f"log_model={log_model!r}: use True, False or 'all'")
        if resume not in (None, "auto"):
            raise ValueError(f"resume={resume!r}: use 'auto' or None")
        self._save_dir, self._name = save_dir, name
        self._version = version or uuid.uuid4().hex[:8]
        self._prefix = f"{prefix}-" if prefix else ""
        self._log_model, self._resume = log_model, resume
        self._uploads = checkpoints.Uploads()
        self.runs = Runs()

    # -- what Lightning asks -----------------------------------------------------------------------

    @property
    def name(self) -> str | None:
        """First folder below `save_dir`."""
        return self._name

    @property
    def version(self) -> int | str | None:
        """Second folder below `save_dir`."""
        return self._version

    @property
    def save_dir(self) -> str | None:
        """Folder for checkpoints; None: the trainer's ``default_root_dir``."""
        return self._save_dir

    @property
    def root_dir(self) -> str | None:
        """None: no log is kept in a folder."""
        return None

    @property
    def log_dir(self) -> str | None:
        """None: no log is kept in a folder."""
        return None

    @property
    def experiment(self) -> Any:
        """The `Training` of the open run; something that bears every call where there is none.

        So before and after a training, and in all ranks but the first.
        """
        training = self.runs.training
        return _dummy_experiment() if training is None or training.silent else training

    # -- what Lightning tells ----------------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics, at step 0 where none is given; outside a fit this opens a run."""
        with guard.shield("lightning.log_metrics"):
            self.runs.log_given(metrics, self._prefix, step or 0)

    def log_hyperparams(
        self,
        params: Mapping[str, Any] | Namespace,
        *args: Any,  # noqa: ARG002 - some loggers take more
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Log params; nested ones with ``/`` between the names. This opens no run."""
        with guard.shield("lightning.log_hyperparams"):
            self.runs.log_params(flattened(params))

    def log_graph(self, model: Any, input_array: Tensor | None = None) -> None:  # noqa: ARG002
        """Have the trainer of `model` report to this logger.

        Lightning calls this before it trains; no other call tells a logger its trainer.
        """
        with guard.shield("lightning.log_graph"):
            try:
                trainer = model.trainer
            except RuntimeError:  # it has none
                return
            self.runs.expect(trainer, model)
            observe(trainer, self)

    def save(self) -> None:
        """Do nothing: what is logged is safe already."""

    def finalize(self, status: str) -> None:
        """End the open run, if any: FINISHED for ``"success"``, else FAILED."""
        with guard.shield("lightning.finalize"):
            self.runs.end(Status.FINISHED if status == "success" else Status.FAILED)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Log or note a checkpoint, as `log_model` and `resume` say."""
        training = self.runs.training
        if training is None or training.run is None:
            return
        with guard.shield("lightning.after_save_checkpoint"):
            if self._resume is not None:
                checkpoints.note_run(checkpoint_callback, training.run.as_former())
            is_due = self._log_model == "all" or checkpoint_callback.save_top_k == -1
            if self._log_model and is_due:
                self._uploads.log(checkpoint_callback, training)

    # -- what the observer tells -------------------------------------------------------------------

    def open_fit(self, trainer: Any) -> Training:
        """Open the run of a fit."""
        former: FormerRun | None = None
        if self._resume is not None and trainer.ckpt_path is not None:
            former = checkpoints.run_of(trainer.ckpt_path)
        return self.runs.open_fit(former)

    def finish_fit(self, trainer: Any, training: Training) -> None:
        """Log what is to be logged of checkpoints at the end."""
        if self._log_model and not training.silent:
            for checkpoint_callback in trainer.checkpoint_callbacks:
                self._uploads.log(checkpoint_callback, training)


class AppendedLogger(AutologLogger):
    """The one that joins the user's loggers under ``enable()``.

    Its name, version and folder are those of the first of them, and it bears every call that the
    user makes on all loggers.
    """

    def __init__(self, first: Any, *, log_model: bool) -> None:
        super().__init__(log_model=log_model)
        self._first = first

    @property
    def name(self) -> str | None:
        """That of the user's first logger."""
        name: str | None = self._first.name
        return name

    @property
    def version(self) -> int | str | None:
        """That of the user's first logger."""
        version: int | str | None = self._first.version
        return version

    @property
    def save_dir(self) -> str | None:
        """That of the user's first logger."""
        save_dir: str | None = self._first.save_dir
        return save_dir

    @property
    def experiment(self) -> Any:
        """Something that bears every call."""
        return _dummy_experiment()

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):
            raise AttributeError(name)
        return _bear


def _bear(*_: object, **__: object) -> None:
    """Stand in for a method of another logger."""


def _dummy_experiment() -> Any:
    for name in ("lightning.fabric.loggers.logger", "lightning_fabric.loggers.logger"):
        if name in sys.modules:
            return sys.modules[name]._DummyExperiment()  # noqa: SLF001 - what Lightning looks for
    return None


def _register(module: ModuleType) -> None:
    """Make `AutologLogger` a ``Logger`` of a name space, which need not be imported for that."""
    with guard.shield("lightning.register"):
        module.loggers.Logger.register(AutologLogger)


for _name_space in NAME_SPACES:
    wrapt.register_post_import_hook(_register, _name_space)
