"""The session: what puts the parts of the training process together. One a process."""

from __future__ import annotations

import atexit
import contextlib
import getpass
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import autolog
from autolog import guard, hooks, settings
from autolog.exits import ExitWatch
from autolog.handle import RunHandle
from autolog.journal import progress
from autolog.journal.root import group_name, journal_root
from autolog.journal.writer import Journal
from autolog.keeper import Keeper
from autolog.receipt import Receipt, account, shipper_state
from autolog.recorder import Recorder, Run
from autolog.records import Status
from autolog.recorder.training import status_of
from autolog.settings import Origin, Target

_POLL = 0.02
_STANDSTILL = 5.0
_STRICT_WAIT = 60.0


class Session:
    """Settings, recorder, journals, keeper and integrations of this process."""

    def __init__(self) -> None:
        self.settings, self.origins = settings.resolve({}, settings.environment())
        self.recorder = Recorder(self.settings, self._journal_for)
        self.recorder.run_tags = _context_tags
        self.recorder.on_start.append(self._say_start)
        self.recorder.on_end.append(self._say_end)
        self.switchboard = hooks.Switchboard()
        self.journals: dict[Path, Journal] = {}
        self.keeper = Keeper(self.settings.mode)
        self._exit_watch = ExitWatch(self._end_all)
        self._root: Path | None = None
        self._runs_ended = 0
        self._apply()
        atexit.register(self._at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)
        if settings.is_spawned():
            self.recorder.adopt_environment()

    def configure(self, arguments: Mapping[str, object]) -> None:
        """Take over the arguments of ``enable()``; raises `SettingError` for an unusable one."""
        self.settings, self.origins = settings.resolve(arguments, settings.environment())
        self._apply()

    def _apply(self) -> None:
        guard.strict, guard.silent = self.settings.strict, self.settings.silent
        self.recorder.settings = self.settings
        if not self.journals:
            self.keeper.mode = self.settings.mode

    def aim(self, tracking_uri: str | None, experiment: str | None) -> None:
        """Send new runs there, and have mlflow do the same."""
        if tracking_uri is not None:
            uri = settings.absolute(tracking_uri)
            self.recorder.tracking_uri = uri
            settings.export("MLFLOW_TRACKING_URI", uri)
            mlflow = settings.mlflow_module()
            if mlflow is not None:
                mlflow.set_tracking_uri(uri)
        if experiment is not None:
            self.recorder.experiment = experiment
            settings.export("MLFLOW_EXPERIMENT_NAME", experiment)

    # -- on and off ------------------------------------------------------------------------------

    def enable(self) -> None:
        """Switch the integrations on, and have a shipper ready for the target."""
        if self.settings.disabled or settings.is_spawned():
            return
        self.switchboard.enable()
        self._exit_watch.start()
        with guard.shield("enable"):
            where = settings.target(self.recorder.tracking_uri, self.recorder.experiment)
            group = self._group(where)
            if group is not None:
                self.keeper.watch(group, where.uri)

    def disable(self) -> None:
        """Switch the integrations off; open runs and what is logged stay."""
        self.switchboard.disable()
        self._exit_watch.stop()

    # -- journals --------------------------------------------------------------------------------

    def _journal_for(self, where: Target) -> Journal | None:
        """The journal of this process for a target; None, said once, when no disk can hold one."""
        group = self._group(where)
        if group is None:
            return None
        journal = self.journals.get(group)
        if journal is not None:
            return journal
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
        folder = group / f"{stamp}-{os.getpid()}-{secrets.token_hex(2)}"
        try:
            journal = Journal(
                folder,
                {"target": where.public_uri, "autolog": autolog.__version__},
                segment_size=self.settings.segment_size,
                limit=self.settings.journal_limit,
                wake=self.keeper.wake,
            )
            self._exit_watch.mark_sigterm(folder)
        except OSError as error:
            self._cannot_store(error)
            return None
        self.journals[group] = journal
        if not self.recorder.is_child:
            self.keeper.watch(group, where.uri, journal)
        return journal

    def _group(self, where: Target) -> Path | None:
        try:
            if self._root is None:
                self._root = journal_root(self.settings.dir)
                if self.settings.dir is not None and self._root != self.settings.dir:
                    guard.say(f"{self.settings.dir} cannot be used; journals are in {self._root}")
            name = group_name(where.public_uri, settings.credential_parts(where.uri), self._root)
            group = self._root / name
            group.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            self._cannot_store(error)
            return None
        return group

    def _cannot_store(self, error: OSError) -> None:
        guard.say_once(
            "no journal",
            f"nothing can be logged: {error}. Training goes on; "
            "set AUTOLOG_DIR to a writable folder with free space",
        )

    # -- waiting -----------------------------------------------------------------------------------

    def flush(self, timeout: float) -> Receipt:
        """Send everything logged so far, files included, and wait for it at most `timeout` s."""
        deadline = time.monotonic() + timeout
        wanted = {journal: journal.request_flush() for journal in self.journals.values()}
        while time.monotonic() < deadline:
            states = {j: progress.load(j.folder) for j in wanted}
            if all(s.cursor >= wanted[j] and not s.uploads for j, s in states.items()):
                break
            time.sleep(_POLL)
        receipt = self.receipt()
        if self.settings.strict and not receipt.complete:
            raise RuntimeError(f"not everything is stored: {receipt}; see autolog.status()")
        return receipt

    def receipt(self) -> Receipt:
        """The account of this process, as far as the shippers have come."""
        return account(self.journals.values())

    def _drain(self) -> None:
        """Wait at exit for metrics, params and ends of runs, while they move and in bounds."""
        budget = self._exit_budget()
        started = moved = time.monotonic()
        cursors: list[int] = []
        wanted = [(journal, journal.request_flush()) for journal in self.journals.values()]
        show = sys.stderr is not None and sys.stderr.isatty() and not guard.silent
        while True:
            now = time.monotonic()
            before, cursors = cursors, [progress.load(j.folder).cursor for j, _ in wanted]
            if all(cursor >= tail for cursor, (_, tail) in zip(cursors, wanted, strict=True)):
                break
            moved = now if cursors != before else moved
            limit = self.settings.exit_timeout_local if self._is_down() else budget
            if now - started > limit or now - moved > min(limit, _STANDSTILL):
                break
            if show and now - started > 1:
                left = self.receipt().pending
                sys.stderr.write(f"\rautolog: sending the last {left} values (Ctrl-C leaves now) ")
            time.sleep(_POLL)
        if show:
            sys.stderr.write("\r\033[K")

    def _exit_budget(self) -> float:
        chosen = self.settings
        if all(settings.is_local(j.description["target"]) for j in self.journals.values()):
            return chosen.exit_timeout_local
        return chosen.exit_timeout_ephemeral if settings.is_ephemeral() else chosen.exit_timeout

    def _is_down(self) -> bool:
        return any(shipper_state(group).down for group in self.journals)

    # -- the end -------------------------------------------------------------------------------------

    def shutdown(self, timeout: float) -> Receipt:
        """End open runs, switch off, and wait for what is logged at most `timeout` seconds."""
        self._end_all(Status.FINISHED)
        self.disable()
        receipt = self.flush(timeout)
        for journal in self.journals.values():
            journal.close()
        return receipt

    def _end_all(self, status: str) -> None:
        for run in list(self.recorder.open_runs):
            self.recorder.end_run(run, status)

    def _at_exit(self) -> None:
        if self.recorder.is_child:
            return
        with guard.shield("exit"):
            self._end_all(self._exit_watch.status)
            if not self.journals:
                return
            for journal in self.journals.values():
                journal.close()
            if self.settings.mode != "offline":
                with contextlib.suppress(KeyboardInterrupt):
                    self._drain()
            self._say_receipt()
            self.keeper.stop()

    def _after_fork(self) -> None:
        self.journals = {}
        self.keeper = Keeper("offline")
        self._exit_watch.after_fork()
        self.recorder.after_fork()

    # -- what is said --------------------------------------------------------------------------------

    def _say_start(self, run: Run) -> None:
        if self._runs_ended == 0 and len(self.recorder.open_runs) == 1:
            guard.say_once(
                "start", f"run {run.start.name} -> {where_to_look(run.target.public_uri)}"
            )

    def _say_end(self, run: Run) -> None:
        self._runs_ended += 1

    def _say_receipt(self) -> None:
        receipt = self.receipt()
        runs = f"{self._runs_ended} run{'s' if self._runs_ended != 1 else ''}"
        guard.say(f"{runs}, {receipt}")
        if receipt.pending:
            pids = sorted({shipper_state(g).pid for g in self.journals} - {0})
            who = f"process {pids[0]} goes on sending; " if pids else ""
            guard.say(f"{who}to send what may be left: autolog sync {self._root}")

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
        }

    def config(self) -> dict[str, Origin]:
        """What `autolog.config` shows."""
        shown = {
            name: Origin(getattr(self.settings, name), origin)
            for name, origin in self.origins.items()
        }
        where = settings.target(self.recorder.tracking_uri, self.recorder.experiment)
        origin = "argument" if self.recorder.tracking_uri else "mlflow, environment or default"
        return {"tracking_uri": Origin(where.public_uri, origin), **shown}

    @contextlib.contextmanager
    def run(
        self, name: str | None, experiment: str | None, tags: Mapping[str, object] | None
    ) -> Iterator[RunHandle]:
        """What `autolog.run` does."""
        recorder = self.recorder
        run = recorder.start_run(
            name or recorder.name_for("run"),
            experiment=experiment,
            tags=tags,
            parent=recorder.context_run(),
        )
        if run is None:
            yield RunHandle(None)
            return
        status = Status.FAILED
        try:
            with recorder.entered(run):
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


def where_to_look(uri: str) -> str:
    """A target, and for a local one the command that opens MLflow's UI on it."""
    if settings.is_local(uri):
        return f"{uri}  (look: mlflow ui --backend-store-uri {uri})"
    return uri


def _context_tags() -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = "unknown"
    source = sys.argv[0] if sys.argv and sys.argv[0] else "<console>"
    return {"mlflow.user": user, "mlflow.source.name": source, "mlflow.source.type": "LOCAL"}


_session: Session | None = None


def get() -> Session:
    """The session of this process."""
    global _session
    if _session is None:
        _session = Session()
    return _session
