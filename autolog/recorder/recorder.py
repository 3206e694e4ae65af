"""`Recorder`: the open runs of this process, which of them is the current one, and fork."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, replace

from autolog import guard, settings
from autolog.journal.writer import Journal
from autolog.records import RunStart, Status
from autolog.recorder.run import Run
from autolog.recorder.training import Training
from autolog.settings import Settings, Target

_INHERITED = "AUTOLOG_RUN"
"""Variable that tells spawned processes which run their parent had open."""

OpenJournal = Callable[[Target], "Journal | None"]


class _Thread(threading.local):
    depth = 0
    """Trainings that this thread is inside of."""


class Recorder:
    """Starts, finds and ends runs. One a process; safe from any thread."""

    def __init__(self, chosen: Settings, open_journal: OpenJournal) -> None:
        """`open_journal` gives the journal of a target, or None when no disk can hold one."""
        self.settings = chosen
        self.tracking_uri: str | None = None
        self.experiment: str | None = None
        self.run_tags: Callable[[], dict[str, str]] = dict
        """Context tags for a run that starts now."""
        self.on_start: list[Callable[[Run], None]] = []
        self.on_end: list[Callable[[Run], None]] = []
        self.open_runs: list[Run] = []
        self.last_run: Run | None = None
        self._open_journal = open_journal
        self._lock = threading.RLock()
        self._thread = _Thread()
        self._paused = 0
        self._stack: ContextVar[tuple[Run, ...]] = ContextVar("autolog_runs", default=())
        self._inherited: RunStart | None = None
        self._inherited_target: Target | None = None
        self.is_child = False

    # -- runs ------------------------------------------------------------------------------------

    def start_run(
        self,
        name: str,
        *,
        experiment: str | None = None,
        tags: Mapping[str, object] | None = None,
        parent: Run | None = None,
        run_id: str | None = None,
    ) -> Run | None:
        """Open a run; with `run_id` adopt the server's run of that id. None when that cannot be."""
        if self.settings.disabled:
            return None
        where = (
            parent.target
            if parent
            else settings.target(self.tracking_uri, experiment or self.experiment)
        )
        journal = self._open_journal(where)
        if journal is None:
            return None
        key = uuid.uuid4().hex
        all_tags = {
            **(self.run_tags() if run_id is None else {}),
            **(self.settings.extra_tags or {}),
            **{str(k): str(v) for k, v in (tags or {}).items()},
        }
        start = RunStart(
            run=next(journal.ids),
            key=key,
            name=name,
            experiment=experiment or where.experiment,
            experiment_id=where.experiment_id,
            tags=all_tags,
            parent_key=parent.key if parent else None,
            run_id=run_id,
            owned=run_id is None,
            timestamp=time.time_ns() // 1_000_000,
        )
        return self._opened(Run(journal, where, start))

    def _opened(self, run: Run) -> Run:
        with self._lock:
            self.open_runs.append(run)
            self.last_run = run
        inherited = asdict(replace(run.start, tags={})) | {"target": run.target.public_uri}
        settings.export(_INHERITED, json.dumps(inherited))
        for listener in self.on_start:
            listener(run)
        return run

    def end_run(self, run: Run, status: str = Status.FINISHED) -> None:
        """End a run, once; open children end with it."""
        with self._lock:
            if run not in self.open_runs:
                return
            children = [child for child in self.open_runs if child.start.parent_key == run.key]
            self.open_runs.remove(run)
        for child in children:
            self.end_run(child, status)
        run.end(status)
        if not self.open_runs:
            settings.export(_INHERITED, None)
        for listener in self.on_end:
            listener(run)

    @contextlib.contextmanager
    def entered(self, run: Run) -> Iterator[None]:
        """Make a run the innermost one of this context."""
        token = self._stack.set((*self._stack.get(), run))
        try:
            yield
        finally:
            self._stack.reset(token)

    def context_run(self) -> Run | None:
        """The innermost open run that this context entered."""
        for run in reversed(self._stack.get()):
            if run.status is None:
                return run
        return None

    def open_run(self) -> Run | None:
        """The run that is current without opening one."""
        only = self.open_runs[0] if len(self.open_runs) == 1 else None
        return self.context_run() or only

    def current_run(self) -> Run | None:
        """Innermost of the context, else the only open one, else a new one."""
        run = self.open_run()
        if run is not None or self.is_silent_rank:
            return run
        with self._lock:
            return (
                self.open_run()
                or self._joined()
                or self._adopted()
                or self.start_run(self.name_for("run"))
            )

    def name_for(self, kind: str) -> str:
        """A run name: the environment's, else ``<kind>-<short id>``."""
        return settings.run_name() or f"{kind}-{uuid.uuid4().hex[:6]}"

    def _adopted(self) -> Run | None:
        """The run that the platform, or the user through MLflow, has open."""
        run_id = settings.adopted_run_id() or settings.mlflow_active_run_id()
        if run_id is None:
            return None
        for run in self.open_runs:
            if run.start.run_id == run_id:
                return run
        return self.start_run("", run_id=run_id)

    # -- trainings -------------------------------------------------------------------------------

    @property
    def is_silent_rank(self) -> bool:
        """True in every rank of a distributed training but the first."""
        return settings.rank() > 0

    @property
    def in_training(self) -> bool:
        """True when hooks have nothing to do in this thread: inside a training, or paused."""
        return self._thread.depth > 0 or self._paused > 0

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Silence every hook of the process; explicit calls go on."""
        with self._lock:
            self._paused += 1
        try:
            yield
        finally:
            with self._lock:
                self._paused -= 1

    def begin_training(
        self, subject: object, *, flavor: str, name: str, holds: bool = True
    ) -> Training:
        """A training of `subject` begins, as an integration sees it.

        Until a training that `holds` ends, others that begin in this thread are silent.
        """
        run, first_epoch, opened = None, 0, False
        with guard.shield("begin_training"):
            if not self.in_training and not self._is_silent_process():
                run, first_epoch, opened = self._run_for(subject, flavor, name)
        if holds:
            self._thread.depth += 1
            before = self._stack.get()
            if run is not None:
                self._stack.set((*before, run))

        def on_end(status: str) -> None:
            if holds:
                self._thread.depth -= 1
                self._stack.set(tuple(r for r in self._stack.get() if r is not run or r in before))
            if run is not None and opened:
                self.end_run(run, status)

        return Training(run, first_epoch=first_epoch, on_end=on_end)

    def _is_silent_process(self) -> bool:
        return (
            self.settings.disabled
            or self.is_silent_rank
            or (self.is_child and not settings.has_rank())
        )

    def _run_for(self, subject: object, flavor: str, name: str) -> tuple[Run | None, int, bool]:
        """The run a training uses, its first epoch there, and whether the training opened it."""
        tags = {"mlflow.autologging": flavor}
        present = self.context_run() or self._adopted() or self._opened_by_user()
        if present is None:
            run = self.start_run(self.name_for(name), tags=tags)
            return run, 0, run is not None
        if self.settings.exclusive:
            return None, 0, False
        former = present.subject() if present.subject else None
        if present.subject is None:
            present.subject = _weakly(subject)
            present.set_tags(tags)
            return present, 0, False
        if former is subject:
            return present, present.next_epoch, False
        child = self.start_run(self.name_for(name), tags=tags, parent=present)
        return child, 0, child is not None

    def _opened_by_user(self) -> Run | None:
        mine = [run for run in self.open_runs if "mlflow.autologging" not in run.start.tags]
        return mine[0] if len(mine) == 1 else None

    # -- children of this process ------------------------------------------------------------------

    def after_fork(self) -> None:
        """In the child: hooks fall silent; an explicit call joins the run open at the fork."""
        newest = self.context_run() or (self.open_runs[-1] if self.open_runs else None)
        for run in self.open_runs:
            run.journal.abandon()
        self._inherited = newest.start if newest else self._inherited
        self._inherited_target = newest.target if newest else None
        self.open_runs = []
        self._lock = threading.RLock()
        self._thread = _Thread()
        self._stack = ContextVar("autolog_runs", default=())
        self.is_child = True

    def adopt_environment(self) -> None:
        """In a spawned child: take over the run that the parent had open."""
        text = settings.environment().get(_INHERITED)
        self.is_child = True
        if text:
            content = json.loads(text)
            self._inherited_target = Target(content.pop("target"))
            self._inherited = RunStart(**content)

    def _joined(self) -> Run | None:
        """The run of the parent process, continued in a journal of this process."""
        if self._inherited is None or self._inherited_target is None:
            return None
        journal = self._open_journal(self._inherited_target)
        if journal is None:
            return None
        start = RunStart(**(asdict(self._inherited) | {"run": next(journal.ids), "owned": False}))
        return self._opened(Run(journal, self._inherited_target, start))


def _weakly(subject: object) -> Callable[[], object | None]:
    try:
        return weakref.ref(subject)
    except TypeError:
        return lambda: subject
