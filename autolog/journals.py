"""`Journals`: the journals of this process, one for each group that it logs to."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path

from autolog import credentials, guard
from autolog.aim import Aim
from autolog.announcer import Announcer
from autolog.exits import ExitWatch
from autolog.journal.root import group_name, journal_root
from autolog.journal.writer import Journal
from autolog.keeper import Keeper
from autolog.settings import Settings
from autolog.targets import Target


class Journals(Mapping[Path, Journal]):
    """Journals by their groups, and the keeper that looks after them."""

    def __init__(
        self, chosen: Settings, aim: Aim, announcer: Announcer, exit_watch: ExitWatch
    ) -> None:
        self.keeper = Keeper(chosen.mode)
        self.root: Path | None = None
        """Where the groups are, as soon as that had to be known."""
        self._settings, self._aim = chosen, aim
        self._announcer, self._exit_watch = announcer, exit_watch
        self._opened: dict[Path, Journal] = {}
        self._lock = threading.RLock()

    def __getitem__(self, group: Path) -> Journal:
        return self._opened[group]

    def __iter__(self) -> Iterator[Path]:
        return iter(self._opened)

    def __len__(self) -> int:
        return len(self._opened)

    def configure(self, chosen: Settings) -> None:
        """Have journals that are opened from now on follow these settings."""
        self._settings = chosen
        if not self._opened:
            self.keeper.mode, self.root = chosen.mode, None

    def expect(self, where: Target) -> None:
        """Have a shipper ready for a target."""
        group = self._group(where)
        if group is not None:
            self.keeper.watch(group, where.uri, token=self._aim.newest_token(where.uri))

    def open(self, where: Target) -> Journal | None:
        """The journal for a target; None, said once, when no disk can hold one."""
        group = self._group(where)
        if group is None:
            return None
        with self._lock:
            return self._opened.get(group) or self._new(group, where)

    def _new(self, group: Path, where: Target) -> Journal | None:
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
        folder = group / f"{stamp}-{os.getpid()}-{secrets.token_hex(2)}"
        try:
            journal = Journal(
                folder,
                {"target": where.public_uri},
                segment_size=self._settings.segment_size,
                limit=self._settings.journal_limit,
                wake=self.keeper.wake,
            )
        except OSError as error:
            _cannot_store(error)
            return None
        with contextlib.suppress(OSError):
            self._exit_watch.mark_sigterm(folder)
        self._opened[group] = journal
        self.keeper.watch(group, where.uri, journal, self._aim.newest_token(where.uri))
        return journal

    def _group(self, where: Target) -> Path | None:
        try:
            if self.root is None:
                self.root = journal_root(self._settings.dir)
                self._announcer.root_chosen(self.root, self._settings.dir)
            self._aim.token_for(where.uri)
            name = group_name(where.public_uri, credentials.parts(where.uri), self.root)
            group = self.root / name
            group.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            _cannot_store(error)
            return None
        return group

    def after_fork(self) -> None:
        """In the child: let go of the parent's journals, and of its keeper."""
        for journal in self._opened.values():
            journal.abandon()
        self._opened = {}
        self._lock = threading.RLock()
        self.keeper = Keeper(self._settings.mode)


def _cannot_store(error: OSError) -> None:
    guard.say_once(
        "no journal",
        f"nothing can be logged: {error}. Training goes on; "
        "set AUTOLOG_DIR to a writable folder with free space",
    )
