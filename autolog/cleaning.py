"""`autolog clean`: takes away journals that nobody needs any more."""

from __future__ import annotations

import shutil
from pathlib import Path

from autolog.journal.owner import Life, Lock
from autolog.journal.root import SHIPPER_LOCK, group_of, journals
from autolog.standing import inspect


def clean(folder: Path, older_than: float, *, force: bool, now: float) -> str:
    """Remove a journal with the runs set aside in it, if it may go; says what was done and why.

    It may go when its owner is dead and the server has everything; with `force` in every case but
    that of a living owner. `older_than` is in seconds; `now` is seconds since the epoch.
    """
    lock = Lock(group_of(folder) / SHIPPER_LOCK)
    try:
        if not lock.acquire():
            return "kept: a process is sending it or its neighbours"
        try:
            return _clean(folder, older_than, force=force, now=now)
        finally:
            lock.release()
    except (OSError, RecursionError) as error:  # the latter: folders in folders, too many
        return f"kept: {error}"


def _clean(folder: Path, older_than: float, *, force: bool, now: float) -> str:
    standings = [inspect(place) for place in journals(folder)]
    if any(standing.life is Life.ALIVE for standing in standings):
        return "kept: its process is alive"
    # Not below 0: the owner moves these times ahead a little.
    age = max(0.0, now - max(entry.stat().st_mtime for entry in folder.iterdir()))
    if age < older_than:
        return f"kept: changed {age / 3600:.1f} hours ago"
    losses = [line for standing in standings for line in standing.left()]
    if losses and not force:
        return f"kept: {'; '.join(losses)}"
    if not force and standings[0].life is not Life.DEAD:
        return "kept: a copy, whose process may be alive elsewhere; --force removes it"
    shutil.rmtree(folder)
    return f"removed; lost: {'; '.join(losses)}" if losses else "removed"
