"""`AutologLogger`, and the run behind it."""

from __future__ import annotations

import contextlib
import sys
import uuid
import weakref
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import wrapt

from autolog import guard, recorder
from autolog.callbacks.lightning.observer import NAME_SPACES, flattened, observe
from autolog.records import Status

if TYPE_CHECKING:
    from argparse import Namespace

    from torch import Tensor

    from autolog.recorder import Training


class AutologLogger:
    """Logs what a trainer runs: ``Trainer(logger=AutologLogger())``.

    A ``Logger`` of both ``lightning.pytorch`` and ``pytorch_lightning``. It works with or without
    ``autolog.enable()``, which adds no second one beside it. One fit is one run.
    No method raises an exception of ours, waits, or makes an I/O call.
    With ``Trainer(enable_autolog_hparams=False)`` only ``enable()`` gives it ``epoch_loss``: such a
    trainer does not show itself to its loggers.

    Args:
        save_dir: Folder for checkpoints and other files that callbacks keep beside the logs.
            Default: the trainer's ``default_root_dir``.
        name: First folder below `save_dir`.
        version: Second folder below `save_dir`. Default: eight hex digits of its own.
        prefix: Put before the name of each of Lightning's metrics, with ``-`` between.
    """

    group_separator = "/"

    def __init__(
        self,
        save_dir: str | None = None,
        *,
        name: str = "lightning_logs",
        version: str | None = None,
        prefix: str = "",
    ) -> None:
        self._save_dir, self._name = save_dir, name
        self._version = version or uuid.uuid4().hex[:8]
        self._prefix = f"{prefix}-" if prefix else ""
        self._params: dict[str, object] = {}
        """Logged before there is a run."""
        self._forget()

    def _forget(self) -> None:
        self._training: Training | None = None
        self._quiet: Training | None = None
        self._model: Callable[[], object] = _nothing

    def __getstate__(self) -> dict[str, Any]:
        """Without the open run, which belongs to this process."""
        own = ("_training", "_quiet", "_model")
        return {name: value for name, value in vars(self).items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

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
        """The `Training` of the open run; where none is open, something that bears every call."""
        return _dummy_experiment() if self._training is None else self._training

    # -- what Lightning tells ----------------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics, at step 0 where none is given; outside a fit this opens a run."""
        with guard.shield("lightning.log_metrics"):
            named = {f"{self._prefix}{key}": value for key, value in metrics.items()}
            self.open().log_metrics(named, step or 0)

    def log_hyperparams(
        self,
        params: Mapping[str, Any] | Namespace,
        *args: Any,  # noqa: ARG002 - some loggers take more
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Log params; nested ones with ``/`` between the names. This opens no run."""
        with guard.shield("lightning.log_hyperparams"):
            flat = flattened(params)
            if self._training is None:
                self._params.update(flat)
            else:
                self._training.log_params(flat)

    def log_graph(self, model: Any, input_array: Tensor | None = None) -> None:  # noqa: ARG002
        """Have the trainer of `model` report to this logger.

        Lightning calls this before it trains; no other call tells a logger its trainer.
        """
        with guard.shield("lightning.log_graph"), contextlib.suppress(RuntimeError):
            self.expect(model)
            observe(model.trainer, self)

    def save(self) -> None:
        """Do nothing: what is logged is safe already."""

    def finalize(self, status: str) -> None:
        """End the open run, if any: FINISHED for ``"success"``, else FAILED."""
        with guard.shield("lightning.finalize"):
            self.end(Status.FINISHED if status == "success" else Status.FAILED)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Do nothing."""

    # -- the run, for the observer and the guest ---------------------------------------------------

    def keep_quiet(self, quiet: Training) -> None:
        """Take over what silences other hooks in this thread, until the run opens."""
        self._quiet = quiet

    def expect(self, model: object) -> None:
        """Name the run that opens next after `model`."""
        self._model = weakref.ref(model)

    def open(self) -> Training:
        """The open training, else a new one."""
        if self._training is None:
            if self._quiet is not None:
                self._quiet.end()
            model = self._model()
            subject = self if model is None else model
            self._training = recorder.get().begin_training(
                subject, flavor="lightning", name=type(subject).__name__
            )
            self._training.log_params(self._params)
            self._params.clear()
        return self._training

    def fail(self, error: BaseException) -> None:
        """End the open training, if any, as `error` says: FAILED or KILLED."""
        if self._training is not None:
            self._training.__exit__(type(error), error, error.__traceback__)
        self._close()

    def end(self, status: str) -> None:
        """End the open training, if any."""
        if self._training is not None:
            self._training.end(status)
        self._close()

    def _close(self) -> None:
        self._training = None
        self._params.clear()


class AppendedLogger(AutologLogger):
    """The one that joins the user's loggers under ``enable()``.

    Its name, version and folder are those of the first of them, and it bears every call that the
    user makes on all loggers.
    """

    def __init__(self, first: Any) -> None:
        super().__init__()
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


def _nothing() -> None:
    """Stand in for a weak reference."""


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
