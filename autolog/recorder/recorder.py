"""`Recorder`: the open runs of this process, and which of them is the current one."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from enum import Enum

from autolog import environment, guard, targets, values
from autolog.journal.writer import Journal
from autolog.recorder import family
from autolog.recorder.family import Inherited
from autolog.recorder.known import KnownRuns
from autolog.recorder.nesting import Nesting
from autolog.recorder.place import Place, SharedRun, place_for
from autolog.recorder.run import FormerRun, Run
from autolog.recorder.training import Training
from autolog.records import RunStart, Status
from autolog.settings import Settings
from autolog.targets import Target

OpenJournal = Callable[[Target], "Journal | None"]


class Role(Enum):
    """Whose a run is that this process logs to."""

    OURS = "ours"
    """Current where no other one is, and ended by us."""
    JOINED = "joined"
    """Ours, but begun by the parent process, which ends it."""
    OTHERS = "others"
    """Begun or ended by other code; current only where that says so."""
    DETACHED = "detached"
    """Never current, and no listener hears of it; its opener ends it."""


class Recorder:
    """Starts, finds and ends runs. One a process; safe from any thread."""

    def __init__(self, chosen: Settings, open_journal: OpenJournal) -> None:
        """`open_journal` gives the journal of a target, or None when no disk can hold one."""
        self.settings = chosen
        self.run_tags: Callable[[], dict[str, str]] = dict
        """Context tags for a run that starts now."""
        self.exit_status: Callable[[], str] = lambda: Status.FINISHED
        """How runs end that are still open when the process does, as far as it is known."""
        self.full_uris: dict[str, Callable[[], str]] = {}
        """What gives the tracking URI that MLflow's own client is to use in place of another."""
        self.on_start: list[Callable[[Run], None]] = []
        self.before_flush: list[Callable[[], None]] = []
        """Called before somebody waits for, or looks at, all that was logged."""
        self.before_end: list[Callable[[Run, str], None]] = []
        """Told of a run that takes its last values now, and of the status it will end with."""
        self.on_end: list[Callable[[Run], None]] = []
        self.on_close: list[Callable[[Run], None]] = []
        """Told of a run of other code that a client of MLflow's has ended."""
        self.open_runs: list[Run] = []
        """The runs that this process opened, and the one of its parent that it joined."""
        self.last_run: Run | None = None
        self.is_enabled_here = False
        """Whether this very process, and not only its parent, called ``enable()``."""
        self.shows_in_mlflow = False
        """Whether a run of ours is MLflow's active run."""
        self.known = KnownRuns()
        self.nesting = Nesting()
        self._fallback: Run | None = None
        """Where calls outside of every context go."""
        self._open_journal = open_journal
        self._lock = threading.RLock()
        self._is_opening = False
        self._waiting: deque[Callable[[Run], None]] = deque()
        self._inherited: Inherited | None = None
        self._is_forked = False

    # -- runs ------------------------------------------------------------------------------------

    def start_run(
        self,
        name: str,
        *,
        experiment: str | None = None,
        tags: Mapping[str, str] | None = None,
        parent: Run | None = None,
        run_id: str | None = None,
        target: Target | None = None,
        former: FormerRun | None = None,
        detached: bool = False,
    ) -> Run | None:
        """Open a run; with `run_id` adopt the server's run of that id, else go on with `former`.

        A `detached` run is never current and no listener hears of it; its caller ends it.
        None when that cannot be.
        """
        if self.is_mute:
            return None
        experiment = values.plain_text(experiment) if experiment else None
        where = target or (parent.target if parent else targets.current(experiment))
        tags = {
            **(self.run_tags() if run_id is None else {}),
            **(self.settings.extra_tags or {}),
            **(tags or {}),
        }
        start = RunStart.new(
            values.plain_text(name)[: values.NAME_LENGTH],
            time.time_ns() // 1_000_000,
            key=former.key if former else None,
            experiment=experiment or where.experiment,
            experiment_id=where.experiment_id,
            tags=tags,
            parent_key=parent.key if parent else None,
            run_id=run_id,
            owned=run_id is None,
        )
        role = Role.OURS if run_id is None else Role.OTHERS
        run = self.open(where, start, Role.DETACHED if detached else role)
        if run is not None and former is not None:
            run.know_params(former.params, by_hooks=True)
            run.resume()
        return run

    def open(self, where: Target, start: RunStart, role: Role) -> Run | None:
        """Open a run that begins so, but for its number; None where no disk can hold a journal."""
        with self._opening():
            journal = self._open_journal(where)
            if journal is None:
                return None
            run = Run(journal, where, replace(start, run=next(journal.ids)))
            run.is_joined = role is Role.JOINED
            if role is not Role.DETACHED:
                self._opened(run, is_ours=role is not Role.OTHERS)
            return run

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        """Keep calls from inside (a finalizer, a signal handler) until the run is open."""
        with self._lock:
            was_opening, self._is_opening = self._is_opening, True
            try:
                yield
            finally:
                self._is_opening = was_opening
        while self._waiting and not was_opening:
            self.on_current_run(self._waiting.popleft())

    def _opened(self, run: Run, *, is_ours: bool) -> None:
        with self._lock:
            self.last_run = run
            if is_ours:
                self.open_runs.append(run)
            self.known.add(run, is_ours=is_ours)
        self._hand_down()
        for listener in self.on_start:
            listener(run)

    def end_run(self, run: Run, status: str = Status.FINISHED) -> None:
        """End a run of `open_runs`, once; open children end with it."""
        if run in self.open_runs:
            for last_call in self.before_end:
                last_call(run, status)
        with self._lock:
            if run not in self.open_runs:
                return
            children = [child for child in self.open_runs if child.start.parent_key == run.key]
            self.open_runs.remove(run)
        for child in children:
            self.end_run(child, status)
        run.end(status)
        self._hand_down()
        for listener in self.on_end:
            listener(run)

    def close(self, run: Run, status: str, end_time: int | None) -> None:
        """End a run as a client of MLflow's asks, which knows nothing of what ends the program."""
        noted = self.exit_status()
        if run in self.open_runs:
            self.end_run(run, status if noted == Status.FINISHED else noted)
        else:
            run.set_status(status, end_time)
            self._hand_down()
            for listener in self.on_close:
                listener(run)

    def log_held_back(self) -> None:
        """Have hooks log what they hold back."""
        for last_call in self.before_flush:
            with guard.shield("before_flush"):
                last_call()

    def open_run(self) -> Run | None:
        """The run that is current without opening one."""
        run = self.nesting.innermost() or self.adopt(targets.mlflow_active_run_id())
        if run is not None:
            return run
        if self._fallback is not None and self._fallback.status is None:
            return self._fallback
        return self.open_runs[0] if len(self.open_runs) == 1 else None

    def on_current_run(self, call: Callable[[Run], None]) -> None:
        """Make a call with the current run; not at all where there is none to be had.

        Current is the innermost run of the context, else the only open one, else a new one.
        The user's context is that of MLflow too: a run that is active there.
        """
        run = self.open_run()
        if run is None and not self.is_mute:
            with self._lock:
                if self._is_opening:  # by this very thread: the lock is ours
                    self._waiting.append(call)
                    return
                with self._opening():
                    run = self.open_run() or self._open_fallback()
        if run is not None:
            call(run)

    def _open_fallback(self) -> Run | None:
        self._fallback = self.surrounding_run() or self.start_run(self.name_for("run"))
        return self._fallback

    def surrounding_run(self) -> Run | None:
        """The run that this process is a part of: its context's, its platform's, its parent's."""
        return (
            self.nesting.innermost()
            or self.adopt(targets.mlflow_active_run_id() or targets.adopted_run_id())
            or self._joined()
        )

    def name_for(self, kind: str) -> str:
        """A run name: the environment's, else ``<kind>-<short id>``."""
        return targets.run_name() or f"{kind}-{uuid.uuid4().hex[:6]}"

    def adopt(self, run_id: str | None, tracking_uri: str | None = None) -> Run | None:
        """The run of an id that others have open: the platform, the user through MLflow, a logger.

        Without a `tracking_uri` it is on that of this process.
        """
        if run_id is None:
            return None
        target = Target(targets.absolute(tracking_uri)) if tracking_uri else None
        with self._lock:
            return self.known.find(run_id) or self.start_run(run_id, run_id=run_id, target=target)

    def own_run(self) -> Run | None:
        """The run of ours that is current here, without opening one."""
        run = self.nesting.innermost() or self._fallback
        if run is not None and run in self.open_runs:
            return run
        if len(self.open_runs) == 1:
            return self.open_runs[0]
        return self._joined()

    def may_be_mlflows(self, run: Run) -> bool:
        """Whether MLflow's own logging, where it is on, goes into this run."""
        return self.shows_in_mlflow or not run.start.owned

    # -- trainings -------------------------------------------------------------------------------

    @property
    def is_mute(self) -> bool:
        """True where nothing is logged at all: switched off, or all but the first rank.

        Also while a child process runs the main script again, which is no second training.
        """
        return self.settings.disabled or environment.rank() > 0 or family.is_importing_main()

    @property
    def are_hooks_mute(self) -> bool:
        """True where only explicit calls log: in a child that has no rank and is not enabled."""
        is_helper = self.is_child and not (environment.has_rank() or self.is_enabled_here)
        return is_helper or self.is_mute

    def begin_training(
        self,
        subject: object,
        *,
        flavor: str,
        name: str,
        holds: bool = True,
        into: SharedRun | FormerRun | None = None,
    ) -> Training:
        """A training of `subject` begins, as an integration sees it.

        Until a training that `holds` ends, others that begin in this thread are silent.
        `into` is the run that the training belongs to, where the integration knows one: that of
        another logger, or a former one, unless the user has opened a run since.
        """
        place = Place()
        with guard.shield("begin_training"):
            if not self.nesting.in_training and not self.are_hooks_mute:
                place = place_for(self, subject, flavor, name, into)
        run, first_epoch, opened = place
        leave = self.nesting.enter_training(run) if holds else None

        def on_end(status: str) -> None:
            if leave is not None:
                leave()
            if run is not None and opened:
                self.end_run(run, status)

        return Training(run, first_epoch=first_epoch, on_end=on_end)

    # -- children of this process ------------------------------------------------------------------

    @property
    def is_child(self) -> bool:
        """True in a process that another one of the same program started."""
        return self._is_forked or family.is_child()

    def after_fork(self) -> None:
        """In the child: hooks fall silent; an explicit call joins the run open at the fork."""
        self._inherited = self._newest()
        self._is_forked, self.is_enabled_here = True, False
        self.open_runs = []
        self.known.clear()
        self.nesting.after_fork()
        self.last_run = self._fallback = None
        self._lock = threading.RLock()
        self._is_opening = False
        self._waiting.clear()

    def _newest(self) -> Inherited | None:
        """What a child that starts now inherits."""
        begun = self.open_runs or self.known.begun_for_others()
        run = self.nesting.innermost() or (begun[-1] if begun else None)
        return Inherited(run.start, run.target) if run else self._parents_run()

    def _hand_down(self) -> None:
        family.hand_down_run(self._newest())

    def _parents_run(self) -> Inherited | None:
        if self._inherited is None and self.is_child:
            self._inherited = family.handed_down_run()
        return self._inherited

    def _joined(self) -> Run | None:
        """The run of the parent process, continued in a journal of this process."""
        inherited = self._parents_run()
        if inherited is None or self.is_mute:
            return None
        for run in self.open_runs:
            if run.key == inherited.start.key:
                return run
        start = replace(inherited.start, owned=False)
        return self.open(inherited.target, start, Role.JOINED)
