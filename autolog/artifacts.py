"""The slow lane: files go to the run in a process of their own; this is the shipper's end of it."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from autolog import launch


class Upload(NamedTuple):
    """One file on its way."""

    run_id: str
    file: str
    """Absolute path of the spooled copy; its name is the artifact's name."""
    path: str
    """Where it goes in the run."""
    kind: str
    """See `Kind`."""


class Outcome(NamedTuple):
    """What became of an upload."""

    problem: str = ""
    """Why the server does not have it; empty when it has."""
    is_final: bool = True
    is_unauthorized: bool = False
    """Whether the server wants another token."""
    after: float | None = None
    """Seconds that the server asked to be left alone."""


class Lane:
    """Uploads one file at a time in a process that starts with the first one."""

    def __init__(
        self, environ: Mapping[str, str], log: Path, token: Callable[[], str | None]
    ) -> None:
        """`token` gives the one that a file goes with, for who uploads has none to renew."""
        self._environ, self._log, self._token = environ, log, token
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.SimpleQueue[str] = queue.SimpleQueue()
        """Of the present process only: a late word of a former one answers nothing."""
        self._current: Upload | None = None

    @property
    def busy(self) -> bool:
        """Whether a file is on its way."""
        return self._current is not None

    @property
    def sent(self) -> int:
        """How many bytes of the current file the process has read; 0 where there is no ``/proc``.

        The kernel is asked, for each of MLflow's repositories sends in its own way.
        """
        if self._current is None or self._process is None:
            return 0
        return _bytes_read(self._process.pid, self._current.file)

    def submit(self, upload: Upload) -> None:
        """Start the upload of a file; only when not `busy`."""
        process = self._running_process()
        assert process.stdin is not None
        self._current = upload
        try:
            process.stdin.write(json.dumps([upload, self._token()]) + "\n")
            process.stdin.flush()
        except Exception as error:  # noqa: BLE001 - a credential may raise anything
            self._replies.put(_failed(f"upload process: {error}"))

    def outcome(self) -> Outcome | None:
        """What became of the current upload, once that is known; never waits."""
        if self._current is None:
            return None
        try:
            outcome = Outcome(*json.loads(self._replies.get_nowait()))
        except queue.Empty:
            return None
        self._current = None
        return outcome

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _running_process(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        with open(self._log, "a", encoding="utf-8") as log:
            process = subprocess.Popen(
                launch.command("autolog.uploading"),
                env=dict(self._environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._process, self._replies = process, queue.SimpleQueue()
        threading.Thread(target=_listen, args=(process, self._replies), daemon=True).start()
        return process


def _listen(process: subprocess.Popen[str], replies: queue.SimpleQueue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        replies.put(line)
    replies.put(_failed("the upload process ended"))


def _bytes_read(pid: int, file: str) -> int:
    """How far a process has come in a file that it has open."""
    process, place, come = Path(f"/proc/{pid}"), Path(file).resolve(), [0]
    with contextlib.suppress(OSError):  # what is closed meanwhile has no position any more
        for fd in (process / "fd").iterdir():
            if fd.readlink() == place:
                position = (process / "fdinfo" / fd.name).read_text().split()[1]
                come.append(int(position))
    return max(come)


def _failed(problem: str) -> str:
    return json.dumps(Outcome(problem, is_final=False))
