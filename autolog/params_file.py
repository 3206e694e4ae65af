"""``params.json``: whole values of params and tags that a store would cut, or that changed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from autolog.batching import Limits
from autolog.journal import files
from autolog.records import Params, Tags
from autolog.values import shortened

NAME = "params.json"


@dataclass(frozen=True, slots=True)
class Whole:
    """What the file has to say of some params and tags."""

    params: dict[str, str] = field(default_factory=dict)
    changes: dict[str, str] = field(default_factory=dict)
    """Later values of params, whose first ones stand."""
    tags: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.params or self.changes or self.tags)


def fit_params(record: Params, limits: Limits) -> tuple[Params, Whole]:
    """The record with values the store takes, and what the file must say beside it."""
    short, whole = _fit(record.params, limits.param_length)
    return Params(record.run, short), Whole(params=whole, changes=record.changed)


def fit_tags(record: Tags, limits: Limits) -> tuple[Tags, Whole]:
    """The record with values the store takes, and what the file must say beside it."""
    short, whole = _fit(record.tags, limits.tag_length)
    return Tags(record.run, short), Whole(tags=whole)


def _fit(texts: dict[str, str], most: int) -> tuple[dict[str, str], dict[str, str]]:
    """Texts as long as the store takes them, and those that are longer."""
    short = {key: shortened(text, most) for key, text in texts.items()}
    return short, {key: text for key, text in texts.items() if short[key] != text}


def spooled_name(run_key: str) -> str:
    """The name of a run's ``params.json`` in the journal's files."""
    return f"{run_key}/{NAME}"


def add(folder: Path, run_key: str, whole: Whole) -> None:
    """Add to a run's ``params.json`` in the journal's files."""
    path = folder / spooled_name(run_key)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        content = json.loads(files.read(path))
    except (OSError, ValueError, RecursionError):
        content = {}
    for part, texts in (("whole", whole.params), ("tags", whole.tags)):
        if texts:
            content.setdefault(part, {}).update(texts)
    for key, text in whole.changes.items():
        changes = content.setdefault("changes", {}).setdefault(key, [])
        if text not in changes:
            changes.append(text)
    files.replace(path, json.dumps(content, indent=1, sort_keys=True).encode())
