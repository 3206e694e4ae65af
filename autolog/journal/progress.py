"""`Progress`: the cursor, and the account of what became of a journal's records.

The shipper is its only writer; the owner, `autolog status` and `sync` read it.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

from autolog.journal.layout import PROGRESS


@dataclass(slots=True)
class Progress:
    """How far a journal has been shipped."""

    cursor: int = 0
    """Everything before this position is acknowledged, refused or set aside."""
    acknowledged: int = 0
    """Values that the server has stored."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Values that the server refused, by its reason."""
    run_ids: dict[str, str] = field(default_factory=dict)
    """The server's run id of each run key."""
    ended: list[str] = field(default_factory=list)
    """Run keys whose end the server knows."""
    uploads: list[list[str]] = field(default_factory=list)
    """Files still to be uploaded: run key, file in the ``files`` folder, path in the run."""
    damage: list[str] = field(default_factory=list)
    """Places of the journal that could not be read."""

    def store(self, folder: Path) -> None:
        """Replace the journal's progress file in one step, with a checksum over its text."""
        text = json.dumps(asdict(self), separators=(",", ":"))
        partial = folder / f"{PROGRESS}.partial"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
        with open(os.open(partial, flags, 0o600), "w", encoding="ascii") as file:
            file.write(f"{zlib.crc32(text.encode()):08x} {text}\n")
        os.replace(partial, folder / PROGRESS)


def load(folder: Path) -> Progress:
    """The progress of a journal; a new one when there is none, or when it is damaged.

    Starting anew only sends again what a server that drops doubles has already.
    """
    try:
        check, _, text = (folder / PROGRESS).read_text(encoding="ascii").partition(" ")
        text = text.rstrip("\n")
        if int(check, 16) != zlib.crc32(text.encode()):
            return Progress()
        return Progress(**json.loads(text))
    except (OSError, ValueError, TypeError):
        return Progress()
