"""`Progress`: the cursor, and the account of what became of a journal's records.

The shipper is its only writer; the owner, `autolog status` and `sync` read it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from autolog.journal import files
from autolog.journal.layout import PROGRESS
from autolog.records import Artifact

_MOST_DAMAGE = 100
_MOST_REASONS = 20
_LONGEST_REASON = 200
_OTHERS = "other reasons, see rejected.jsonl"


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
    """Files still to be uploaded: run key, file in the ``files`` folder, path in the run, kind."""
    filed: dict[str, int] = field(default_factory=dict)
    """Values by run key that only ``params.json`` has, which is still to be uploaded."""
    target: str = ""
    """The server that all of this is about; empty for the one that ``meta.json`` names."""
    damage: list[str] = field(default_factory=list)
    """What of the journal could not be read: the first places, each once."""
    held: dict[str, dict[str, int]] = field(default_factory=dict)
    """Values by reason of each run key that was set aside; `rejected` counts them too."""

    @property
    def settled(self) -> int:
        """Values that the server has stored or refused."""
        return self.acknowledged + sum(self.rejected.values())

    def reject(self, reason: str, values: int) -> str:
        """Count values as refused; returns the reason that they stand under.

        A server may say something else of each value: past so many reasons one stands for the rest.
        """
        reason = reason[:_LONGEST_REASON]
        if reason not in self.rejected and len(self.rejected) >= _MOST_REASONS:
            reason = _OTHERS
        self.rejected[reason] = self.rejected.get(reason, 0) + values
        return reason

    def settle_upload(self, upload: list[str], refusal: str, *, is_params_file: bool) -> None:
        """Strike a file off the list: the server has it, or never will, by its `refusal`."""
        self.uploads.remove(upload)
        values = 1
        if is_params_file:  # it has changed since where it is to be uploaded again
            values = 0 if upload in self.uploads else self.filed.pop(upload[0], 0)
        if refusal:
            self.reject(refusal, values)
        else:
            self.acknowledged += values

    def note_damage(self, reason: str) -> bool:
        """Add a line to `damage`; False when it stands there already or there are too many."""
        line = reason[:_LONGEST_REASON]
        if line in self.damage or len(self.damage) >= _MOST_DAMAGE:
            return False
        self.damage.append(line)
        return True

    def store(self, folder: Path) -> None:
        """Replace the journal's progress file in one step, with a checksum over its text."""
        text = json.dumps(asdict(self), separators=(",", ":"))
        files.replace(folder / PROGRESS, f"{zlib.crc32(text.encode()):08x} {text}\n".encode())


def load(folder: Path) -> Progress:
    """The progress of a journal; a new one when there is none, or when it is damaged.

    Starting anew only sends again what a server that drops doubles has already.
    """
    try:
        return _parsed(files.read(folder / PROGRESS).decode("ascii"))
    except FileNotFoundError:
        return Progress()
    except (OSError, ValueError, TypeError, RecursionError) as error:
        anew = Progress()
        anew.note_damage(f"{PROGRESS}: shipped from the start again, {error}")
        return anew


def _parsed(line: str) -> Progress:
    check, _, text = line.partition(" ")
    if int(check, 16) != zlib.crc32(text.rstrip("\n").encode()):
        raise ValueError("wrong checksum")
    progress = Progress(**json.loads(text))
    if not _is_sound(progress):
        raise ValueError("not of this format")
    return progress


def _is_sound(progress: Progress) -> bool:
    return (
        _is_count(progress.cursor)
        and _is_count(progress.acknowledged)
        and _is_dict(progress.rejected, _is_count)
        and _is_dict(progress.run_ids, _is_text)
        and _is_list(progress.ended, _is_text)
        and _is_list(progress.uploads, _is_upload)
        and _is_dict(progress.filed, _is_count)
        and _is_list(progress.damage, _is_text)
        and _is_dict(progress.held, lambda reasons: _is_dict(reasons, _is_count))
        and _is_dict(progress.held, lambda counts: _is_dict(counts, _is_count))
        and _is_text(progress.target)
    )


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_upload(value: object) -> bool:
    return (
        _is_list(value, _is_text)
        and len(value) == 4
        and not Artifact(0, *value[1:]).leads_elsewhere
    )


def _is_list(value: object, accepts: Callable[[object], bool]) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and all(map(accepts, value))


def _is_dict(value: object, accepts: Callable[[object], bool]) -> bool:
    return isinstance(value, dict) and all(map(accepts, value.values()))
