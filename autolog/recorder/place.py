"""Which run a training goes into, where there are others."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from autolog import environment
from autolog.recorder.run import FormerRun, Run

if TYPE_CHECKING:
    from autolog.recorder.recorder import Recorder


class SharedRun(NamedTuple):
    """A run that another logger of the same training has opened and will end."""

    run_id: str
    tracking_uri: str | None
    """None: that of this process."""


class Place(NamedTuple):
    """Where a training is logged."""

    run: Run | None = None
    """None: nowhere."""
    first_epoch: int = 0
    """Where its epochs begin there."""
    is_new: bool = False
    """Whether the run was opened for it."""


def place_for(
    recorder: Recorder,
    subject: object,
    flavor: str,
    name: str,
    into: SharedRun | FormerRun | None,
) -> Place:
    """The place of a training of `subject` that begins now: see `Recorder.begin_training`."""
    tags = {"mlflow.autologging": flavor}
    shared = recorder.adopt(*into) if isinstance(into, SharedRun) else None
    present = shared or recorder.surrounding_run() or _opened_by_user(recorder)
    if isinstance(into, FormerRun) and into.parent_key == (present.key if present else None):
        return _new(recorder.start_run(into.name, tags=tags, parent=present, former=into))
    if present is None:
        return _new(recorder.start_run(recorder.name_for(name), tags=tags))
    if recorder.settings.exclusive:
        return Place()
    former = present.subject() if present.subject else None
    if present.subject is None and not _is_shared(recorder, present):
        present.subject = _weakly(subject)
        if "mlflow.autologging" not in present.start.tags:  # else MLflow's own began it
            present.set_tags(tags, by_user=False)
        return Place(present)
    if former is subject or present is shared:
        return Place(present, present.next_epoch)
    return _new(recorder.start_run(recorder.name_for(name), tags=tags, parent=present))


def _new(run: Run | None) -> Place:
    return Place(run, is_new=run is not None)


def _opened_by_user(recorder: Recorder) -> Run | None:
    mine = [run for run in recorder.open_runs if "mlflow.autologging" not in run.start.tags]
    return mine[0] if len(mine) == 1 else None


def _is_shared(recorder: Recorder, run: Run) -> bool:
    """Whether other processes may train in a run as well: siblings, unless they are ranks."""
    return recorder.is_child and not (run.start.owned or environment.has_rank())


def _weakly(subject: object) -> Callable[[], object | None]:
    try:
        return weakref.ref(subject)
    except TypeError:
        return lambda: subject
