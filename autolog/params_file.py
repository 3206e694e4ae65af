"""``params.json``: whole values of params that a store would cut or that changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autolog.batching import Limits
from autolog.journal import files
from autolog.records import Params, Tags
from autolog.values import shortened

NAME = "params.json"


def fit_params(record: Params, limits: Limits) -> tuple[Params, dict[str, Any]]:
    """The record with values the store takes, and what ``params.json`` must say beside it."""
    short = {key: shortened(text, limits.param_length) for key, text in record.params.items()}
    whole: dict[str, Any] = {key: text for key, text in record.params.items() if short[key] != text}
    whole.update({key: {"changed to": text} for key, text in record.changed.items()})
    return Params(record.run, short), whole


def fit_tags(record: Tags, limits: Limits) -> Tags:
    """The record with values the store takes."""
    return Tags(record.run, {k: shortened(v, limits.tag_length) for k, v in record.tags.items()})


def spooled_name(run_key: str) -> str:
    """The name of a run's ``params.json`` in the journal's files."""
    return f"{run_key}/{NAME}"


def add(folder: Path, run_key: str, entries: dict[str, Any]) -> None:
    """Add entries to a run's ``params.json`` in the journal's files."""
    path = folder / spooled_name(run_key)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        content = json.loads(files.read(path))
    except (OSError, ValueError, RecursionError):
        content = {}
    for key, entry in entries.items():
        if isinstance(entry, dict):
            changes = content.setdefault("changes", {}).setdefault(key, [])
            if entry["changed to"] not in changes:
                changes.append(entry["changed to"])
        else:
            content.setdefault("whole", {})[key] = entry
    files.replace(path, json.dumps(content, indent=1, sort_keys=True).encode())
