"""The keeper: one daemon thread that does, once a second, what the hot path must not do.

It prepares journal segments, and starts the shipper of each group and starts it again.
"""

from __future__ import annotations

import importlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from autolog import credentials, environment, guard, launch, targets
from autolog.journal import progress
from autolog.journal.owner import is_locked
from autolog.journal.root import SHIPPER_LOCK, SHIPPER_LOG
from autolog.journal.writer import Journal
from autolog.mirror import Mirror
from autolog.recorder import family
from autolog.workspace.bearer import expiry

_TICK = 1.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_SHIPPER = "autolog.shipper"
_SHORTEST_TOKEN_PAUSE, _LONGEST_TOKEN_PAUSE = 0.2, 20.0


class Sender:
    """The shipper of one group, as seen from a process that logs there."""

    def __init__(self, group: Path, uri: str, mode: str, token: Callable[[], str] | None) -> None:
        self.group, self._uri, self.mode, self._token = group, uri, mode, token
        self.journals: list[Journal] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._pause = _SHORTEST_PAUSE
        self._not_before = 0.0
        self._was_started = False
        self._is_renewed = threading.Event()

    def renew(self) -> None:
        """Have the shipper told at once where `token` gives another one now."""
        self._is_renewed.set()

    def ensure(self, now: float) -> None:
        """Start a shipper where none works on the group and there is something to send."""
        if self.mode == "offline" or self._is_running() or now < self._not_before:
            return
        if self._was_started and not self._has_unsent():
            return
        self._pause = min(2 * self._pause, _LONGEST_PAUSE) if self._was_started else self._pause
        self._not_before, self._was_started = now + self._pause, True
        self._start()

    def release(self) -> None:
        """Leave the shipper to itself: it outlives this process, so Popen must not complain."""
        if self._process is not None and self._process.poll() is None:
            self._process.returncode = 0

    def _is_running(self) -> bool:
        if self._thread is not None and self._thread.is_alive():
            return True
        if self._process is not None and self._process.poll() is None:
            return True
        return is_locked(self.group / SHIPPER_LOCK)

    def _has_unsent(self) -> bool:
        for journal in self.journals:
            state = progress.load(journal.folder)
            if state.cursor < journal.tail or state.uploads:
                return True
        return False

    def _start(self) -> None:
        if self.mode == "process" and sys.executable:
            try:
                self._process = self._spawn()
            except OSError as error:
                guard.say_once("no process", f"no process can be started, a thread sends ({error})")
            else:
                return
        self._thread = threading.Thread(target=self._ship, name="autolog-shipper", daemon=True)
        self._thread.start()

    def _ship(self) -> None:
        with guard.shield("shipper", firm=True):
            importlib.import_module(_SHIPPER).ship(self.group, self._uri, self._token)

    def _spawn(self) -> subprocess.Popen[bytes]:
        log = os.open(self.group / SHIPPER_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = subprocess.Popen(
                [*launch.command(_SHIPPER), str(self.group)],
                cwd=self.group,
                env=credentials.shipper_environment(
                    self._uri, sends_tokens=self._token is not None
                ),
                stdin=subprocess.DEVNULL if self._token is None else subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)
        if self._token is not None:
            feed = threading.Thread(
                target=self._send_tokens,
                args=(self._token, process),
                name="autolog-tokens",
                daemon=True,
            )
            feed.start()
        return process

    def _send_tokens(self, token: Callable[[], str], process: subprocess.Popen[bytes]) -> None:
        """Write each new token to a shipper, in good time; in memory only."""
        sent = ""
        while process.poll() is None and process.stdin is not None:
            pause = _LONGEST_TOKEN_PAUSE
            self._is_renewed.clear()
            with guard.shield("tokens", firm=True):
                text = self._text_of(token, sent)
                if text != sent:
                    try:
                        process.stdin.write(f"{text}\n".encode())
                        process.stdin.flush()
                    except OSError:  # it has ended
                        return
                    sent = text
                left = expiry(text) - time.time() if text else 0.0
                if left > 0:  # else a clock is wrong, and says nothing
                    pause = min(pause, max(_SHORTEST_TOKEN_PAUSE, left / 10))
            self._is_renewed.wait(pause)

    def _text_of(self, token: Callable[[], str], sent: str) -> str:
        """The token; where there is none, that is said, and the one that was sent goes on."""
        try:
            return token()
        except Exception as error:  # noqa: BLE001 - a credential may raise anything
            guard.say_once(
                f"tokens:{self._uri}",
                f"the credential given for {targets.without_userinfo(self._uri)} gives no token "
                f"({type(error).__name__}: {error}). What is logged waits in the journal; "
                "enable(workspace=...) with one that does, or autolog sync later",
            )
            return sent


class Keeper:
    """The thread itself; `watch` starts it."""

    def __init__(self, mode: str) -> None:
        self.senders: dict[Path, Sender] = {}
        self.mode = mode
        outputs = environment.job_outputs()
        self._mirror = Mirror(outputs) if outputs is not None else None
        self._is_stopped = False
        self._wakes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Have the next round at once; safe in finalizers and signal handlers."""
        self._wakes.put(True)

    def watch(
        self,
        group: Path,
        uri: str,
        journal: Journal | None = None,
        token: Callable[[], str] | None = None,
    ) -> None:
        """Look after a group, and after a journal of this process in it.

        `token` gives tokens where the credential lives in this process only.
        """
        sender = self.senders.get(group)
        if sender is None:
            sender = Sender(group, uri, self.mode, token)
            self.senders = {**self.senders, group: sender}
        sender.renew()
        if journal is not None:
            sender.journals.append(journal)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="autolog-keeper", daemon=True)
            self._thread.start()
        self.wake()

    def _run(self) -> None:
        while not self._is_stopped:
            with guard.shield("keeper", firm=True):
                self.round(time.monotonic())
            try:
                self._wakes.get(timeout=_TICK)
            except queue.Empty:
                continue

    def round(self, now: float) -> None:
        """One round over all groups and journals."""
        for sender in self.senders.values():
            for journal in sender.journals:
                journal.prepare()
                if self.mode == "offline":
                    journal.sync()
            sender.ensure(now)
            self._look_at_copies(sender, now)

    def _look_at_copies(self, sender: Sender, now: float) -> None:
        """Where they cannot be written, all else goes on."""
        if self._mirror is not None:
            with guard.shield("mirror", firm=True):
                for journal in sender.journals:
                    self._mirror.look(journal.folder, now)
                if not family.is_child():
                    self._mirror.look_at_ended(sender.group, now)

    def ensure(self) -> None:
        """Have what is logged so far sent, though this process ends before the next round."""
        for sender in self.senders.values():
            sender.ensure(time.monotonic())
        self.leave()

    def stop(self) -> None:
        """Stop the thread, leave the shippers running."""
        self._is_stopped = True
        self.wake()
        self.leave()

    def leave(self) -> None:
        """This process ends: leave the shippers to themselves, and copies of what they lack."""
        for sender in self.senders.values():
            sender.release()
            if self._mirror is not None:
                with guard.shield("mirror", firm=True):
                    for journal in sender.journals:
                        self._mirror.leave(journal.folder)
                    if not family.is_child():
                        self._mirror.leave_ended(sender.group)
