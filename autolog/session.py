"""The session: what puts the parts of the training process together. One a process."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from autolog import context, environment, guard, hooks, settings, targets, values
from autolog.aim import Aim
from autolog.announcer import Announcer
from autolog.backlog import backlog
from autolog.drain import drain
from autolog.exits import ExitWatch
from autolog.handle import RunHandle
from autolog.journal import progress
from autolog.journal.writer import Journal
from autolog.journals import Journals
from autolog.receipt import Receipt, account, shipper_state
from autolog.recorder import Recorder, Run, family
from autolog.recorder.training import status_of
from autolog.records import Status
from autolog.settings import Origin
from autolog.targets import Target
from autolog.waiting import until
from autolog.workspace import job
from autolog.workspace.address import lacks_host

_STRICT_WAIT = 60.0
_OF_SHIPPERS = frozenset({"batch_seconds", "upload_mb_per_second"})
"""Settings that shippers read in the environment they are started with."""


class Session:
    """Settings, target, recorder, journals and integrations of this process."""

    def __init__(self) -> None:
        self._given: dict[str, object] = {}
        self.settings, self.origins = settings.resolve({}, environment.variables())
        self.recorder = Recorder(self.settings, self._journal_for)
        self.aim = Aim(self.recorder.full_uris)
        self.recorder.run_tags = context.tags
        self.recorder.exit_status = lambda: self._exit_watch.status
        self._announcer = Announcer(self.receipt)
        self.recorder.on_start.append(self._announcer.run_started)
        self.recorder.on_end.append(self._announcer.run_ended)
        self.recorder.on_close.append(self._announcer.link)
        self.switchboard = hooks.Switchboard()
        self._exit_watch = ExitWatch(self._end_all, self.recorder.log_held_back)
        self.journals = Journals(self.settings, self.aim, self._announcer, self._exit_watch)
        self.recorder.on_start.append(lambda _: self._exit_watch.start())
        self.recorder.on_end.append(self._after_run)
        self._apply()
        atexit.register(self._at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def configure(self, arguments: Mapping[str, object]) -> None:
        """Take over arguments of ``enable()``, on top of earlier ones; None is not given.

        In a child process those of its parent count too.
        Raises `SettingError` for an unusable one, and changes nothing then.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        inherited = family.handed_down("settings") if self.recorder.is_child else {}
        known = {**inherited, **self._given, **given}
        self.settings, self.origins = settings.resolve(known, environment.variables())
        self._given = known
        self._apply()
        for name in _OF_SHIPPERS & given.keys():
            environment.export(settings.variable(name), str(getattr(self.settings, name)))
        family.hand_down("settings", {name: getattr(self.settings, name) for name in known})

    def _apply(self) -> None:
        guard.strict, guard.silent = self.settings.strict, self.settings.silent
        self.recorder.settings = self.settings
        self.journals.configure(self.settings)

    # -- on and off ------------------------------------------------------------------------------

    def enable(self) -> None:
        """Switch the integrations on, and have a shipper ready for the target.

        Raises `RuntimeError` when strict and the target cannot be used.
        Not while a child process runs the main script again, only to have its functions.
        """
        if self.settings.disabled or family.is_importing_main():
            return
        if self.settings.strict and self.settings.mode != "offline":
            self.aim.check(targets.current())
        self.recorder.is_enabled_here = True
        targets.restore_job_run()
        self.switchboard.enable()
        with guard.shield("enable"):
            where = targets.current()
            self.journals.expect(where)
            if self.settings.mode != "offline":
                job.keep_fresh(where.uri)

    def disable(self) -> None:
        """Switch the integrations off; open runs and what is logged stay."""
        self.switchboard.disable()
        if lacks_host(str(targets.tracking_uri().value)):
            guard.say_once(
                "no host",
                "MLflow by itself cannot use a workspace whose host nobody has asked for here: "
                "mlflow.set_tracking_uri() takes what Workspace.get_mlflow_tracking_uri() gives",
            )

    def _journal_for(self, where: Target) -> Journal | None:
        """The journal of this process for a target; None, said once, when no disk can hold one."""
        if not self.journals and self.recorder.is_child:
            self.configure({})  # the parent's options: they were not there while main was imported
            family.at_end(self._at_end_of_child)
        return self.journals.open(where)

    # -- waiting -----------------------------------------------------------------------------------

    def flush(self, timeout: float) -> Receipt:
        """Send everything logged so far, files included, and wait for it at most `timeout` s.

        Offline nobody sends: then there is nothing to wait for, and pending is no failure.
        """
        self.recorder.log_held_back()
        is_offline = self.settings.mode == "offline"
        wanted = {journal: journal.request_flush() for journal in self.journals.values()}

        def is_sent() -> bool:
            states = {j: progress.load(j.folder) for j in wanted}
            return all(s.cursor >= wanted[j] and not s.uploads for j, s in states.items())

        until(is_sent, 0 if is_offline else timeout)
        receipt = self.receipt()
        is_bad = receipt.rejected or receipt.dropped or (receipt.pending and not is_offline)
        if self.settings.strict and is_bad:
            raise RuntimeError(f"not everything is stored: {receipt}; see autolog.status()")
        return receipt

    def receipt(self) -> Receipt:
        """The account of this process, as far as the shippers have come."""
        return account(self.journals.values())

    # -- the end -----------------------------------------------------------------------------------

    def shutdown(self, timeout: float) -> Receipt:
        """End open runs, switch off, and wait for what is logged at most `timeout` seconds."""
        self._end_all(Status.FINISHED)
        self.switchboard.disable()
        receipt = self.flush(timeout)
        for journal in self.journals.values():
            journal.close()
        return receipt

    def _end_all(self, status: str) -> None:
        for run in list(self.recorder.open_runs):
            self.recorder.end_run(run, status)

    def _after_run(self, _: Run) -> None:
        if not self.recorder.open_runs:
            self._exit_watch.stop()

    def _at_exit(self) -> None:
        with guard.shield("exit", firm=True):
            self._end_all(self._exit_watch.status)
            self.recorder.known.leave()
            if self.recorder.is_child:
                return
            if self.journals:
                self._end_journals()
            else:
                self.journals.keeper.leave()

    def _end_journals(self) -> None:
        is_offline = self.settings.mode == "offline"
        for journal in self.journals.values():
            journal.close()
            if is_offline:
                journal.sync()
        if not is_offline:
            with contextlib.suppress(KeyboardInterrupt):
                drain(self.journals, self.settings, self._announcer.process_waits)
        self._announcer.process_ends(self.journals, self.journals.root)
        self.journals.keeper.stop()

    def _at_end_of_child(self) -> None:
        with guard.shield("end of child", firm=True):
            self._end_all(status_of(sys.exc_info()[1]))
            self.journals.keeper.ensure()

    def _after_fork(self) -> None:
        guard.after_fork()
        self.journals.after_fork()
        self._exit_watch.after_fork()
        self.recorder.after_fork()

    # -- what is shown -----------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What `autolog.status` shows."""
        return {
            "enabled": self.switchboard.on,
            "instrumented": self.switchboard.instrumented,
            "open_runs": [run.start.name for run in self.recorder.open_runs],
            "receipt": self.receipt(),
            "internal_errors": dict(guard.failures),
            "journals": [str(journal.folder) for journal in self.journals.values()],
            "shippers": {str(group): shipper_state(group) for group in self.journals},
            "uploads": {str(group): backlog(group) for group in self.journals},
        }

    def config(self) -> dict[str, Origin]:
        """What `autolog.config` shows."""
        shown = {
            name: Origin(getattr(self.settings, name), origin)
            for name, origin in self.origins.items()
        }
        return {**self.aim.config(), **shown}

    @contextlib.contextmanager
    def run(
        self, name: str | None, experiment: str | None, tags: Mapping[str, object] | None
    ) -> Iterator[RunHandle]:
        """What `autolog.run` does."""
        recorder, run = self.recorder, None
        with guard.shield("run"):
            given = "" if name is None else values.plain_text(name)
            run = recorder.start_run(
                given or recorder.name_for("run"),
                experiment=experiment,
                parent=recorder.surrounding_run(),
            )
        if run is None:
            yield RunHandle(None)
            return
        status = Status.FAILED
        try:
            if tags is not None:
                with guard.shield("run"):
                    run.set_tags(tags)
            with recorder.nesting.entered(run):
                yield RunHandle(run)
            status = Status.FINISHED
        except BaseException as error:
            status = status_of(error)
            raise
        finally:
            recorder.end_run(run, status)
        if self.settings.strict:
            self.flush(_STRICT_WAIT)

    def last_run(self) -> RunHandle | None:
        """A handle on the run opened last."""
        run = self.recorder.last_run
        return RunHandle(run) if run is not None else None


_session: Session | None = None
_making = threading.RLock()


def get() -> Session:
    """The session of this process; threads whose first calls come at once get the same one."""
    global _session
    if _session is None:
        with _making:
            if _session is None:
                _session = Session()
    return _session
