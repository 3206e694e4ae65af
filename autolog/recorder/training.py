"""`Training`: one training as a hook sees it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from autolog import guard
from autolog.recorder.files import MODEL
from autolog.records import Status

if TYPE_CHECKING:
    import os

    from autolog.recorder.models import Model
    from autolog.recorder.run import Run
    from autolog.settings import Settings

EPOCH_LOSS = "epoch_loss"


class Training:
    """The verbs of one training.

    Silent where this training is not to be logged: every verb then does nothing.
    No verb raises an ``Exception``, and none but those of artifacts makes an I/O call.
    """

    def __init__(
        self, run: Run | None, *, first_epoch: int = 0, on_end: Callable[[str], None]
    ) -> None:
        self.run = run
        self.first_epoch = first_epoch
        """Where the epoch axis starts: 0, or behind an earlier fit of the same object."""
        self.first_step = 0 if run is None else run.last_step
        """The optimizer step that earlier trainings in the run have come to, if they noted it."""
        self._on_end: Callable[[str], None] | None = on_end

    @property
    def silent(self) -> bool:
        """True when nothing of this training is logged."""
        return self.run is None

    def log_metrics(self, metrics: Mapping[str, object], step: int) -> None:
        """Log values of one step, except for names that other code logs in this run.

        Behind the end of the run too: that changes neither its status nor the time of its end.
        """
        if self.run is None:
            return
        with guard.shield("training.log_metrics"):
            if EPOCH_LOSS in metrics:
                self.run.next_epoch = max(self.run.next_epoch, step + 1)
            self.run.log_hook_metrics(metrics, step)

    def log_batch_metrics(self, metrics: Mapping[str, object], step: int) -> None:
        """Log values of one optimizer step: the first to go when the disk is short."""
        if self.run is None:
            return
        with guard.shield("training.log_batch_metrics"):
            self.run.log_hook_metrics(metrics, step, essential=False)

    def note_step(self, step: int) -> None:
        """The training has come to this optimizer step; a later one in the run starts there."""
        if self.run is not None:
            self.run.last_step = max(self.run.last_step, step)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log params: any objects, made stable text; secrets are masked."""
        if self.run is None:
            return
        with guard.shield("training.log_params"):
            self.run.log_hook_params(params)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags of the run."""
        if self.run is None:
            return
        with guard.shield("training.set_tags"):
            self.run.set_tags(tags, by_user=False)

    def log_inputs(self, datasets: Sequence[Mapping[str, object]]) -> None:
        """Log datasets, each as MLflow's ``runs/log-inputs`` has it.

        A server that does not take them is left without, and no value counts as refused.
        """
        if self.run is None or not datasets:
            return
        with guard.shield("training.log_inputs"):
            content = json.dumps({"datasets": datasets, "models": []})
            self.run.write_inputs(content, by_hooks=True)

    def log_text(self, text: str, path: str) -> None:
        """Log a small text as an artifact."""
        if self.run is None:
            return
        with guard.shield("training.log_text"):
            self.run.files.log_text(text, path)

    def log_artifact(self, local_path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Log a file, or every file of a folder, as it is now: a copy goes to the journal."""
        if self.run is None:
            return
        with guard.shield("training.log_artifact"):
            self.run.files.log_artifact(local_path, folder)

    def log_bytes(self, content: bytes, path: str) -> None:
        """Log the content of a small file as an artifact."""
        if self.run is None:
            return
        with guard.shield("training.log_bytes"):
            self.run.files.log_bytes(content, path)

    def log_model(self, model: Model, chosen: Settings, name: str = MODEL) -> None:
        """Log the trained model as the settings say; one that cannot be serialised costs a line."""
        if self.run is None:
            return
        with guard.shield("training.log_model"):
            self.run.files.log_model(model, chosen, name)

    def end(self, status: str = Status.FINISHED) -> None:
        """End the training, once, and its run if the training opened it."""
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            with guard.shield("training.end"):
                on_end(status)

    def __enter__(self) -> Training:  # noqa: PYI034 - Self is in typing from 3.11 on
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(status_of(error))


def status_of(error: BaseException | None) -> str:
    """How a run ends that an exception leaves, or nothing does."""
    if error is None or (isinstance(error, SystemExit) and error.code in (0, None)):
        return Status.FINISHED
    if isinstance(error, KeyboardInterrupt):
        return Status.KILLED
    return Status.FAILED
