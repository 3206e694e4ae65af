"""How this process, or this notebook cell, comes to its end, without a signal handler of ours."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
from _sitebuiltins import Quitter  # the builtins `exit` and `quit`
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from autolog import hooks
from autolog.journal import files
from autolog.journal.layout import KILLED_MARKER
from autolog.recorder.training import status_of
from autolog.records import Status

_MARK_SIZE = 4096
"""Bytes that the mark of SIGTERM has room for: a line for each frame of the stack."""


class ExitWatch:
    """Notes an exception or an exit code that ends the program."""

    def __init__(self, cell_failed: Callable[[str], None], cell_ended: Callable[[], None]) -> None:
        """`cell_failed` is called with a status when a notebook cell raises, else `cell_ended`."""
        self.status = Status.FINISHED
        """How runs end that are still open when the process does."""
        self._cell_failed, self._cell_ended = cell_failed, cell_ended
        self._marker: TextIO | None = None
        self._shell: Any = None

    def start(self) -> None:
        """Watch ``sys.excepthook``, every ``exit`` and, in a notebook, the cells; twice is once."""
        hooks.wrap(sys, "excepthook", self._noting_exception)
        hooks.wrap(sys, "exit", self._noting_exit)
        hooks.wrap(Quitter, "__call__", self._noting_quit)
        ipython = sys.modules.get("IPython")
        self._shell = ipython.get_ipython() if ipython is not None else None
        if self._shell is not None:
            self._shell.events.register("post_run_cell", self._after_cell)

    def stop(self) -> None:
        """Put back what `start` replaced, and forget what was noted."""
        self.status = Status.FINISHED
        hooks.unwrap(sys, "excepthook")
        hooks.unwrap(sys, "exit")
        hooks.unwrap(Quitter, "__call__")
        if self._shell is not None:
            self._shell.events.unregister("post_run_cell", self._after_cell)
            self._shell = None

    def mark_sigterm(self, journal: Path) -> None:
        """Have the C runtime leave a mark in the journal when SIGTERM ends the process.

        Works inside a long C call, where no Python handler would run.
        A handler of the user's is left alone.
        Raises `OSError` where there is no room for the mark.
        """
        if os.name != "posix" or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return
        path = journal / KILLED_MARKER
        if self._marker is not None:
            os.link(self._marker.name, path)
            return
        self._marker = open(path, "x", encoding="ascii", opener=files.private)  # noqa: SIM115
        with contextlib.suppress(OSError):  # full now: there may be room by then, as without this
            os.pwrite(self._marker.fileno(), bytes(_MARK_SIZE), 0)
        faulthandler.register(signal.SIGTERM, file=self._marker, all_threads=False, chain=True)

    def after_fork(self) -> None:
        """In a child: its SIGTERM says nothing of the parent."""
        if self._marker is not None:
            faulthandler.unregister(signal.SIGTERM)
            self._marker.close()
            self._marker = None

    def _noting_exception(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def excepthook(
            kind: type[BaseException], error: BaseException, trace: TracebackType | None
        ) -> Any:
            self.status = status_of(error)
            return original(kind, error, trace)

        return excepthook

    def _noting_exit(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def exit(code: object = None, /) -> Any:  # noqa: A001 - stands for sys.exit
            self._note(code)
            return original(code)

        return exit

    def _noting_quit(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def __call__(quitter: Quitter, code: object = None) -> Any:  # noqa: N807
            self._note(code)
            return original(quitter, code)

        return __call__

    def _note(self, code: object) -> None:
        if threading.current_thread() is threading.main_thread():  # elsewhere it ends a thread
            self.status = status_of(SystemExit(code))

    def _after_cell(self, result: Any) -> None:
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            self._cell_failed(status_of(error))
        else:
            self._cell_ended()
